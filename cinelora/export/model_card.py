"""The model card of an exported adapter: how it was trained, how to load it, and its row of the study's rank table.

In: a trial's spec and result, the study's report if there is one. Out: Markdown with the front matter of model hubs.
Standard library only.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from cinelora.core.config import seed_text
from cinelora.core.records import TrialResult, TrialSpec

UNKNOWN_LICENCE = "unknown: set it"
NO_TABLE = "The study has no report yet: `python -m analysis.report STUDY` makes it."
NOT_IN_TABLE = "The study's report has no row for this adapter alone."


def model_card(spec: TrialSpec, result: TrialResult, report: Path, loading: str, licence: str, merged: bool) -> str:
    """`report`: the study's report folder. `loading`: code that loads the weights; `merged`: they hold the base too."""
    model = spec.config.model
    sections = [
        _front_matter(model.hub, licence, merged),
        f"# LoRA of rank {result.rank} on {model.hub or model.name}",
        "\n".join(["| | |", "|:--|:--|", *(f"| {name} | {value} |" for name, value in _facts(spec, result))]),
        f"```python\n{loading}\n```",
        f"## Results of the study\n\n{_rank_table(report, result)}",
        f"Trial {spec.trial_id} of a cinelora study of LoRA ranks.",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(hub: str, licence: str, merged: bool) -> str:
    # values in JSON, which is YAML
    fields: dict[str, object] = {"license": licence, "library_name": "diffusers"}
    if hub:
        fields |= {"base_model": hub, "base_model_relation": "finetune" if merged else "adapter"}
    fields |= {"pipeline_tag": "image-to-video", "tags": ["lora", "wan", "image-to-video"]}
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _facts(spec: TrialSpec, result: TrialResult) -> list[tuple[str, str]]:
    config, data, train = spec.config, spec.config.data, spec.config.train
    trained = f"{result.steps} steps of {train.batch_size} clips, AdamW, learning rate {result.learning_rate:g}"
    if not config.method.trains:
        trained = f"elsewhere, by {config.trainer or 'an unknown program'}; the clips below are those it was scored on"
    return [
        ("base model", config.model.hub or config.model.name),
        ("revision", f"`{config.model.revision}`" if config.model.revision else "not pinned"),
        ("fingerprint of the base", f"`{spec.fingerprints['model']}`"),
        ("rank", str(result.rank)),
        ("alpha", f"{result.alpha:g} (rule {result.scaling})"),
        ("scale of the update", f"{result.scale:.6g}"),
        ("targets", f"{result.targets}: {result.trainable_parameters:,} parameters"),
        ("training", trained),
        ("first stage", f"trial {config.first}, whose update is included here" if config.first else "none"),
        ("seed", seed_text(result.seed)),
        ("clips", f"{data.frames} frames at {data.fps:g} fps, {data.height}x{data.width} pixels"),
        ("fingerprint of the clips", f"`{spec.fingerprints['data']}`"),
        ("SHA-256 of the adapter's tensors", f"`{result.adapter_sha256}`"),
        ("held-out loss", "-" if result.heldout_loss is None else f"{result.heldout_loss:.6g}"),
    ]


def _rank_table(report: Path, result: TrialResult) -> str:
    """From the study's rank table: its head, the base, this adapter's row (all its seeds), real clips, the caption."""
    try:
        text, rows = ((report / f"rank_table.{kind}").read_text("utf-8") for kind in ("md", "csv"))
    except FileNotFoundError:
        return NO_TABLE
    settings = list(csv.DictReader(rows.splitlines()))
    mine = [index for index, row in enumerate(settings) if _is_of(row, result)]
    lines = text.splitlines()
    first = next((index for index, line in enumerate(lines) if line.startswith("|")), 0)
    table = lines[first : first + 2 + len(settings)]
    if len(mine) != 1 or len(table) != 2 + len(settings):
        return NOT_IN_TABLE
    kept = [index for index, row in enumerate(settings) if row["row"] in ("base", "real clips") or index in mine]
    caption = next((line for line in lines[first + len(table) :] if line and not line.startswith("|")), "")
    return "\n".join([*table[:2], *(table[2 + index] for index in kept)]) + (f"\n\n{caption}" if caption else "")


def _is_of(row: dict[str, str], result: TrialResult) -> bool:
    """Whether a row of rank_table.csv has the settings of this adapter; it holds numbers to nine digits."""
    wanted = {
        "row": result.arm or "lora",
        "rank": str(result.rank),
        "alpha": f"{result.alpha:.9g}",
        "scaling": result.scaling,
        "targets": result.targets,
        "learning_rate": f"{result.learning_rate:.9g}" if result.learning_rate else "",
    }
    return all(row.get(name) == value for name, value in wanted.items())
