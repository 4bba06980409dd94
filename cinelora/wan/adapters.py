"""Many finished adapters on one resident base: loaded once, switched in milliseconds.

In: a frozen WanTransformer3DModel and adapter files of diffusers layout, of any ranks, alphas and target sets.
Out: the base's forward pass with none, one or several of them, bit for bit that of a fresh pipeline which loaded them.
Switching is what diffusers' `set_adapters` and `disable_lora` do, layer by layer; fusing would not restore the base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer

from cinelora.wan.lora import detach, put


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
                put(self.transformer, file, name)
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
