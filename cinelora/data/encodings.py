"""Names inside the encoding cache. Standard library only, so planning loads no torch."""

from __future__ import annotations

from pathlib import Path

from cinelora.core.config import Dtype
from cinelora.core.files import content_hash
from cinelora.data.windows import Window, WindowPlan

ENCODER_VERSION = 1  # raise when the meaning of a cached tensor changes
NO_CAPTION = ""  # of a sample whose caption is dropped
ENCODINGS = "encodings"  # their folder in the cache
WINDOWS_FILE = "windows.json"  # the WindowPlan, in the folder of its encodings


def encoding_folder(
    cache_dir: Path, data_fingerprint: str, model_fingerprint: str, text_dtype: Dtype | None = None
) -> Path:
    """The one folder of this data set under this model, whose text encoder runs in `text_dtype`."""
    key = {"data": data_fingerprint, "model": model_fingerprint, "version": ENCODER_VERSION}
    if text_dtype is not None:  # None, the stored precision, keeps the names of older caches
        key["text_dtype"] = text_dtype.value
    return cache_dir / ENCODINGS / content_hash(key, 16)


def shared_folder(cache_dir: Path, model_fingerprint: str, text_dtype: Dtype | None = None) -> Path:
    """The encodings of all data sets under this model, each named by what was encoded."""
    return encoding_folder(cache_dir, "of any data", model_fingerprint, text_dtype)


def encoder_fingerprint(text_dtype: Dtype | None) -> str:
    """The encoders' part of a trial's identity, in addition to the files of the model."""
    return str(ENCODER_VERSION) if text_dtype is None else f"{ENCODER_VERSION}, text in {text_dtype.value}"


def window_file(folder: Path, window_id: str) -> Path:
    return folder / f"{window_id}.safetensors"


def text_file(folder: Path, prompt: str) -> Path:
    return folder / f"text-{content_hash(prompt, 16)}.safetensors"


def missing(folder: Path, plan: WindowPlan, negative: set[str]) -> tuple[list[Window], list[str]]:
    """Windows and prompts that are not in the cache yet; `negative`: the negative prompts of all trials."""
    windows = [w for w in plan.all if not window_file(folder, w.window_id).exists()]
    prompts = sorted({w.caption for w in plan.all} | negative)
    return windows, [p for p in prompts if not text_file(folder, p).exists()]
