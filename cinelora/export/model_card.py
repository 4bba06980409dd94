"""The model card of an exported adapter: what it was made from, how, and what the study says of it.

In: a trial's spec and result, the study's report if there is one. Out: Markdown with the front matter of model hubs.
Standard library only.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from cinelora.core.config import ModelConfig
from cinelora.core.records import TrialResult, TrialSpec

UNKNOWN_LICENCE = "unknown: set it"
NO_TABLE = "The study has no report yet: `python -m analysis.report STUDY` makes it."
NOT_IN_TABLE = "The study's report has no row for this adapter alone."
LOADING = {
    "diffusers": """import torch
from diffusers import WanImageToVideoPipeline

pipe = WanImageToVideoPipeline.from_pretrained("{base}", torch_dtype=torch.bfloat16)
pipe.load_lora_weights(".", weight_name="{file}")  # the scale is in the file's metadata""",
    "comfyui": """# ComfyUI: put {file} into models/loras and load it with LoraLoaderModelOnly at strength 1.
# Names are those of the original Wan code; the scale is multiplied into lora_B, so there is no alpha in the file.""",
    "merged": """import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel

denoiser = WanTransformer3DModel.from_pretrained(".", torch_dtype=torch.{dtype})  # the adapter is in the weights
pipe = WanImageToVideoPipeline.from_pretrained("{base}", transformer=denoiser, torch_dtype=torch.bfloat16)""",
}


@dataclass(frozen=True)
class Card:
    """What a card is written from. `layout`: diffusers, comfyui or merged; `report`: the study's report folder."""

    spec: TrialSpec
    result: TrialResult
    report: Path
    layout: str
    file: str
    licence: str

    def text(self) -> str:
        config = self.spec.config
        code = LOADING[self.layout].format(
            base=config.model.hub or "BASE", file=self.file, dtype=config.model.dtype.value
        )
        parts = [
            self._front(),
            f"# LoRA of rank {self.result.rank} on {base_name(config.model)}",
            "\n".join(["| | |", "|:--|:--|", *(f"| {name} | {value} |" for name, value in self._facts())]),
            f"```python\n{code}\n```",
            "## What the study says\n\n" + table_of(self.report, self.result),
            f"Trial {self.spec.trial_id} of a cinelora study of LoRA ranks.",
        ]
        return "\n\n".join(parts) + "\n"

    def _front(self) -> str:
        hub = self.spec.config.model.hub
        fields: dict[str, object] = {"license": self.licence, "library_name": "diffusers"}
        if hub:
            relation = "finetune" if self.layout == "merged" else "adapter"
            fields |= {"base_model": hub, "base_model_relation": relation}
        fields |= {"pipeline_tag": "image-to-video", "tags": ["lora", "wan", "image-to-video"]}
        lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]  # JSON is YAML
        return "\n".join(["---", *lines, "---"])

    def _facts(self) -> list[tuple[str, str]]:
        config, result, marks = self.spec.config, self.result, self.spec.fingerprints
        data, train = config.data, config.train
        return [
            ("base model", base_name(config.model)),
            ("revision", f"`{config.model.revision}`" if config.model.revision else "not pinned"),
            ("fingerprint of the base", f"`{marks['model']}`"),
            ("rank", str(result.rank)),
            ("alpha", f"{result.alpha:g} (rule {result.scaling})"),
            ("scale of the update", f"{result.scale:.6g}"),
            ("targets", f"{result.targets}: {result.trainable_parameters:,} parameters"),
            (
                "training",
                f"{result.steps} steps of {train.batch_size} clips, AdamW, learning rate {result.learning_rate:g}",
            ),
            ("first stage", f"trial {config.first}, whose update is in here too" if config.first else "none"),
            ("seed", str(result.seed)),
            ("clips", f"{data.frames} frames at {data.fps:g} fps, {data.height}x{data.width} pixels"),
            ("fingerprint of the clips", f"`{marks['data']}`"),
            ("SHA-256 of the adapter's tensors", f"`{result.adapter_sha256}`"),
            ("held-out loss", "-" if result.heldout_loss is None else f"{result.heldout_loss:.6g}"),
        ]


def base_name(model: ModelConfig) -> str:
    return model.hub or model.name


def table_of(report: Path, result: TrialResult) -> str:
    """Of the study's rank table: its head, the base, this adapter's row (all its seeds), real clips, the caption."""
    try:
        text, rows = (report / "rank_table.md").read_text(), (report / "rank_table.csv").read_text()
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
        "learning_rate": f"{result.learning_rate:.9g}",
    }
    return all(row.get(name) == value for name, value in wanted.items())
