"""The search for the learning rate of each rank that a study starts with (`rates.search`): what it runs, what it costs.

In: the jobs of the study. Out: the jobs of the search, a study of its own in STUDY-rates; the jobs of the study at the
chosen rates; lines for a plan. The choice itself: `sweeps/rates.py`. Loads no torch and no Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import (
    AnswerConfig,
    DataConfig,
    LoraConfig,
    Method,
    Prune,
    RatesConfig,
    Scaling,
    StudyConfig,
    TrialConfig,
)
from cinelora.core.files import file_sha256
from cinelora.core.paths import StudyFolder
from cinelora.core.records import to_dict
from launch.estimate import Estimate, cost_text, demand_of, sweep_seconds
from launch.preflight import Fingerprints
from sweeps.cost import CostModel, gpu_hours
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.prune import cell, side_by_side
from sweeps.rates import Search, key, total_hours

SEED = 0  # one training seed for each rate
NOT_PRICED = (
    "learning_rate_by_rank: the search for these rates has a cost of its own, which is not in this plan; "
    "rates.search=true plans and runs the search too"
)
OWN_SELECTION = {"builtin:film": "builtin:film-select"}  # sets with other held-out clips for a search


def search_jobs(configs: Sequence[StudyConfig]) -> list[StudyConfig]:
    """One job for each rank (of each target set) and each rate. Raises UserError for what cannot be searched."""
    study = configs[0]
    trained = [config for config in configs if config.method.trains]
    if not trained:
        methods = ", ".join(dict.fromkeys(config.method.value for config in configs))
        raise UserError(f"rates.search=true: nothing is trained with method={methods}, so no rate can be searched")
    grid = [config for config in trained if not config.arm] or trained
    jobs = []
    for method, rates in ((Method.lora, study.rates.grid), (Method.full, study.rates.full_grid)):
        own = [config for config in grid if config.method is method]
        if not own:
            continue
        if varied := _varied(own):
            raise UserError(f"rates.search=true: {varied} varies besides rank, targets and seed; give it one value")
        ruled = [config for config in own if config.lora.scaling is Scaling.alpha_equals_rank]
        first = (ruled or own)[0]
        ranks = dict.fromkeys(key(config) for config in (*own, *trained) if config.method is method)
        loras = {each.lora.targets.value: each.lora.targets for each in trained}
        for targets, rank in ranks:
            lora = replace(first.lora, rank=rank, targets=loras[targets]) if rank else first.lora
            jobs += [_job(first, study.rates.data, lora, rate) for rate in rates]
    return jobs


def _varied(configs: Sequence[StudyConfig]) -> str:
    """The first setting, of those that a rate may depend on, with two values; ""."""
    names = {item.name for item in fields(TrialConfig)} - {"seed", "lora"}
    settings = [dict(_flat(to_dict(config))) for config in configs]
    varied = (name for name in settings[0] if len({str(each.get(name)) for each in settings}) > 1)
    return next((name for name in varied if name.split(".")[0] in names), "")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _job(config: StudyConfig, folder: str, lora: LoraConfig, rate: float) -> StudyConfig:
    return replace(
        config,
        name=f"{config.name}-rates",
        study_dir=f"{Path(config.study_dir)}-rates",
        arm="",
        seed=SEED,
        lora=lora,
        data=_selection(config.data, folder),
        stage1=replace(config.stage1, data=_selection(config.stage1.data, folder)),
        train=replace(config.train, learning_rate=rate),
        sample=replace(config.sample, clips=_begun_with_clips(Path(f"{config.study_dir}-rates"))),
        learning_rate_by_rank={},
        learning_rate_by_targets={},
        frozen_row=False,
        rates=RatesConfig(),
        answer=AnswerConfig(),
    )


def _begun_with_clips(folder: Path) -> bool:
    """Whether a search of an older version began here, whose trials generated clips: it goes on so, and keeps them."""
    ledger = Ledger(StudyFolder(folder))
    return ledger.folder.plan.exists() and all(spec.config.sample.clips for spec in ledger.plan().trials)


def _selection(data: DataConfig, folder: str) -> DataConfig:
    """Clips to choose on, none of which the study reports."""
    if path := folder or OWN_SELECTION.get(data.path, ""):
        return replace(data, path=path)
    return replace(data, selection=True)


def check_folder(study: DataConfig, search: DataConfig, fingerprints: Fingerprints) -> None:
    """Raises UserError if a clip of `rates.data` is one that the study reports."""
    reported = {window.video for window in fingerprints.windows_of(study).heldout}
    there = {file_sha256(Path(study.path) / video) for video in reported}
    plan = fingerprints.windows_of(search)
    for video in sorted({window.video for window in (*plan.train, *plan.heldout)}):
        if file_sha256(Path(search.path) / video) in there:
            raise UserError(
                f"rates.data={search.path}: {video} is held out by the study too, and rates must not be chosen on "
                "clips that it reports; take other clips, or leave rates.data empty"
            )


def at_rates(config: StudyConfig, found: Sequence[Search]) -> StudyConfig:
    """The study's job at the chosen rates, as if they were written by hand; nothing is left to prune."""
    rates: dict[str, dict[int, float]] = {}
    for each in found:
        rates.setdefault(each.targets, {})[each.rank] = each.best
    full, train = rates.pop("", {}).get(0), config.train
    if config.method is Method.full and full is not None:
        train = replace(train, learning_rate=full)
    own: dict[str, Any] = {"learning_rate_by_rank": {}, "learning_rate_by_targets": rates}
    return replace(config, train=train, prune=Prune.off, **own)


def stand_in(search: Sequence[StudyConfig]) -> list[Search]:
    """A rate for each rank, as long as none is chosen: with it all else of the study can be checked and priced."""
    first = {key(config): config.train.learning_rate for config in reversed(search)}
    return [Search(rank, {rate: 0.0}, targets=targets) for (targets, rank), rate in first.items()]


def choice_lines(record: Mapping[str, Any], found: Sequence[Search]) -> list[str]:
    chosen = ", ".join(f"{each.name} {each.best:g}" for each in found)
    head = f"learning rates chosen on {record['clips']} clips for {total_hours(record):.3g} worker-hours: {chosen}"
    return [head, *(f"warning: {each.edge}" for each in found if each.edge)]


def price_lines(
    search: StudyConfig, ledger: Ledger, plan: Plan, model: CostModel | None, both: Sequence[Estimate]
) -> list[str]:
    """What search and study cost together, and the least of it that early ends may leave; `both`: search, study."""
    hours, walls = [each.hours for each in both], [each.makespan for each in both]
    if None in hours:
        return ["search and study: cost unknown, see above"]
    total = sum(each or 0.0 for each in hours)
    known = all(wall is not None or not hour for wall, hour in zip(walls, hours, strict=True))
    whole = sum(wall or 0.0 for wall in walls) if known else None
    text = f"search and study: {cost_text(search.cluster, total, whole)}"
    if model is None or search.prune is Prune.off:
        return [text]
    fewer, wall = _ended_early(search, ledger, plan, model)
    least = cost_text(search.cluster, fewer, wall)
    whole = whole - (both[0].makespan or 0.0) + wall if whole is not None and wall is not None else None
    lower = cost_text(search.cluster, total - (hours[0] or 0.0) + fewer, whole)
    return [
        f"the search with prune={search.prune.value}: at least {least}, where all rates of a rank train side by side; "
        "at most the cost above",
        f"{text}; at least {lower}",
    ]


def _ended_early(search: StudyConfig, ledger: Ledger, plan: Plan, model: CostModel) -> tuple[float, float | None]:
    """(hours, seconds of the sweep) of the trials to run if the rule ends as many as it can at its first checks."""
    cells: dict[str, list[str]] = {}
    pending = ledger.pending(plan, keep_pruned=True)
    for spec in pending:
        cells.setdefault(cell(spec), []).append(spec.trial_id)
    shares: dict[str, float] = {}
    for kind, names in cells.items():
        shares |= zip(names, side_by_side(search.prune, len(names)) if kind else [1.0] * len(names), strict=True)
    work = {spec.trial_id: demand_of(search, spec).work() for spec in pending}
    for name, share in shares.items():
        if share < 1:  # it leaves after some of its steps and generates nothing
            work[name] = replace(work[name], train=work[name].train * share, evaluate=0, generate=0, clips=0)
    seconds = {name: model.rates.seconds(one) for name, one in work.items()}
    return gpu_hours(seconds, work, search.cluster.gpus), sweep_seconds(search.cluster, pending, seconds)[0]
