"""Many finished adapters on one resident base: loaded once, switched in milliseconds.

In: a frozen WanTransformer3DModel and adapter files of diffusers layout, of any ranks, alphas and target sets.
Out: the base's forward pass with none, one or several of them, bit for bit that of a fresh pipeline which loaded them.
Switching is what diffusers' `set_adapters` and `disable_lora` do, layer by layer; fusing would not restore the base.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer

from cinelora.errors import UserError
from cinelora.lora import detach


class Resident:
    """A base and the adapters on it. Load before the model is sharded or compiled; `release` gives the base back."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self._names: dict[Path, str] = {}  # file -> PEFT's name for it
        self._layers: list[BaseTunerLayer] = []

    def load(self, files: Iterable[Path]) -> None:
        """Put these adapters beside those that are there; none is active then.

        Raises UserError for a file that is missing, no adapter, or of another base.
        """
        for file in files:
            if file not in self._names:
                name = f"resident{len(self._names)}"
                _load(self.transformer, file, name)
                self._names[file] = name
        self._layers = [each for each in self.transformer.modules() if isinstance(each, BaseTunerLayer)]
        self.use([])

    def use(self, files: Sequence[Path]) -> None:
        """Compute with these, added up in this order; the base alone with none. KeyError: not loaded."""
        names = [self._names[file] for file in files]
        for layer in self._layers:
            if layer.disable_adapters == bool(names):
                layer.enable_adapters(bool(names))
            if names:
                layer.set_adapter(names, inference_mode=True)

    def release(self) -> None:
        """Take all adapters off: plain layers and the names of the base again."""
        detach(self.transformer)
        self._names, self._layers = {}, []


def _load(transformer: Any, file: Path, name: str) -> None:
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    if not file.is_file():
        raise UserError(f"{file}: missing; the adapter of a finished trial is what is loaded")
    try:
        state, metadata = WanLoraLoaderMixin.lora_state_dict(
            str(file.parent), weight_name=file.name, return_lora_metadata=True, local_files_only=True
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are the point
            transformer.load_lora_adapter(state, adapter_name=name, metadata=metadata)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{file}: is no adapter of this base ({reason})") from error
    for parameter_name, parameter in transformer.named_parameters():
        if f".{name}." in parameter_name:
            base = transformer.get_submodule(parameter_name.split(".lora_")[0]).base_layer.weight
            parameter.data = parameter.data.to(base)  # its dtype and device
            parameter.requires_grad_(False)
