"""LoRA adapters of the denoiser: attach one to train, save it, load finished ones, switch among them.

In: a frozen WanTransformer3DModel and LoraConfig. Out: trainable parameters, and a diffusers LoRA file
that holds its alpha (without that metadata a reload silently uses alpha = r). PEFT does the arithmetic.

    W x  +  scale * B (A x)      A: (r, in) uniform(+-1/sqrt(in)),  B: (out, r) zero

The scale is `LoraConfig.scale` in `cinelora/core/config.py`: the tables of a study show it, and they load no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from cinelora.core.cli import UserError
from cinelora.core.config import LayerKind, LoraConfig, Scaling, TargetSet
from cinelora.core.files import whole_folder
from cinelora.core.seeds import generator

_ATTENTION = r"(to_q|to_k|to_v|to_out\.0)"
_IMAGE = r"(add_k_proj|add_v_proj)"
_FFN = r"ffn\.net\.(0\.proj|2)"
_EMBEDDERS = r"(time|text)_embedder\.linear_[12]|time_proj|image_embedder\.ff\.net\.(0\.proj|2)"
_LAYERS = {LayerKind.self: 4, LayerKind.cross: 4, LayerKind.image: 2, LayerKind.ffn: 2, LayerKind.outer: 8}
_SIBLINGS = re.compile(r"blocks\.\d+\.attn1\.to_[qkv]")  # they read one tensor that needs a gradient
OWN, FIRST = "default", "first"  # PEFT's names for the adapter of a trial and for that of its first stage
NamedParameters = list[tuple[str, torch.nn.Parameter]]


def target_pattern(targets: TargetSet) -> str:
    """The regular expression of the names of its layers, which is written into adapter files.

    PEFT matches it against whole names; a list of names it would match by their ends, which hits both attentions.
    """
    layers, inside = targets.layers, []
    if LayerKind.image in layers:
        inside += [rf"attn1\.{_ATTENTION}"] * (LayerKind.self in layers)
        inside += [rf"attn2\.({_ATTENTION}|{_IMAGE})" if LayerKind.cross in layers else rf"attn2\.{_IMAGE}"]
    elif attentions := "1" * (LayerKind.self in layers) + "2" * (LayerKind.cross in layers):
        inside += [rf"attn{attentions}\.{_ATTENTION}" if len(attentions) == 1 else rf"attn[12]\.{_ATTENTION}"]
    inside += [_FFN] * (LayerKind.ffn in layers)
    pattern = r"blocks\.\d+\." + (inside[0] if len(inside) == 1 else f"({'|'.join(inside)})")
    return f"{pattern}|condition_embedder\\.({_EMBEDDERS})|proj_out" if LayerKind.outer in layers else pattern


def peft_config(lora: LoraConfig) -> PeftConfig:
    return PeftConfig(
        r=lora.rank,
        lora_alpha=lora.effective_alpha,  # type: ignore[arg-type]
        use_rslora=lora.scaling is Scaling.rslora,
        target_modules=target_pattern(lora.targets),
        init_lora_weights=True,
    )


def load_adapter(transformer: Any, file: Path, name: str = FIRST) -> None:
    """Put a finished adapter on the base, frozen, in the dtype and on the device of its layers; `detach` removes it.

    `name`: PEFT's, by default that of a first stage. UserError: a file that is missing, no adapter, or of another base.
    """
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    if not file.is_file():
        raise UserError(f"{file}: missing; give the adapter of a finished trial")
    try:
        state, metadata = WanLoraLoaderMixin.lora_state_dict(
            str(file.parent), weight_name=file.name, return_lora_metadata=True, local_files_only=True
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are intended
            transformer.load_lora_adapter(state, adapter_name=name, metadata=metadata)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{file}: is no adapter of this base ({reason}); give one that was trained on it") from error
    for parameter_name, parameter in parameters_of(transformer, name):
        layer = transformer.get_submodule(parameter_name.split(".lora_")[0])
        parameter.data = parameter.data.to(layer.base_layer.weight)
        parameter.requires_grad_(False)


def parameters_of(transformer: Any, adapter: str) -> NamedParameters:
    return sorted((n, p) for n, p in transformer.named_parameters() if ".lora_" in n and f".{adapter}." in n)


def attach(transformer: Any, lora: LoraConfig, seed: int) -> NamedParameters:
    """Add the adapter in place, on top of a first stage if one is loaded: its float32 parameters, sorted by name.

    UserError: the base has not the linear layers that the target set names, so a part of it would go untrained.
    """
    with torch.random.fork_rng(devices=[]):  # PEFT draws from the global generator before we overwrite A
        stacked = list(getattr(transformer, "peft_config", None) or {})
        transformer.add_adapter(peft_config(lora), OWN)
    if stacked:
        transformer.set_adapters([*stacked, OWN])
        transformer.requires_grad_(False)  # PEFT lets all active adapters train
    parameters = parameters_of(transformer, OWN)
    blocks, found = transformer.config.num_layers, len(parameters) // 2
    wanted = sum(_LAYERS[kind] * (1 if kind is LayerKind.outer else blocks) for kind in lora.targets.layers)
    if found != wanted:
        raise UserError(
            f"lora.targets={lora.targets.value}: {found} linear layers of this base match, {wanted} should; "
            "take a base with the layers of Wan2.1 I2V, or other targets"
        )
    for name, parameter in parameters:
        parameter.data = _initial(name, parameter, seed).to(parameter.device)
        parameter.requires_grad_(True)
    for name, module in transformer.named_modules():
        if _SIBLINGS.fullmatch(name) and hasattr(module, "base_layer"):
            module.register_forward_pre_hook(_own_input)
    return parameters


def _own_input(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A view of the input, so that the gradients through the base layer and through A are summed before others.

    Queries, keys and values read one tensor. ZeRO-3 wraps the input of each module and so sums in this order; with the
    same order everywhere, all ZeRO stages agree to the bit.
    """
    return args[0].view_as(args[0]), *args[1:]


def _initial(name: str, parameter: torch.nn.Parameter, seed: int) -> torch.Tensor:
    """Row i of A depends on (seed, module, i) alone, so rank 8 starts as rank 4 plus four more rows."""
    if ".lora_B" in name:
        return torch.zeros(parameter.shape)
    rank, width = parameter.shape
    rows = [torch.rand(width, generator=generator(seed, "lora_A", name, row)) for row in range(rank)]
    return (torch.stack(rows) * 2 - 1) / width**0.5


def detach(transformer: Any) -> None:
    """Remove adapter and wrappers: plain Linear modules, original key names."""
    if getattr(transformer, "peft_config", None):
        transformer.unload_lora()


def adapter_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes of the adapter tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_adapter(folder: Path, state: dict[str, torch.Tensor], lora: LoraConfig | PeftConfig) -> int:
    """Write `pytorch_lora_weights.safetensors` with its PEFT metadata; returns its bytes.

    `state`: full tensors by parameter name. Equal adapters give equal bytes.
    """
    settings = peft_config(lora) if isinstance(lora, LoraConfig) else lora
    from diffusers import WanImageToVideoPipeline

    assert all(tensor.numel() > 0 for tensor in state.values()), "an adapter tensor is empty: not gathered"
    layers = {name.replace(".default.", "."): tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_folder(folder, replace=True) as temporary:
        WanImageToVideoPipeline.save_lora_weights(
            temporary,
            transformer_lora_layers=layers,
            transformer_lora_adapter_metadata={  # sets have no order
                key: sorted(value) if isinstance(value, set) else value for key, value in settings.to_dict().items()
            },
        )
        for path in temporary.glob("*.safetensors"):
            _order_header(path)
    return sum(path.stat().st_size for path in folder.iterdir())


def _order_header(path: Path) -> None:
    """Sort the metadata of a safetensors file, which the library writes in random order. No tensor moves."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size, f"{path}: header of {size} bytes does not hold {len(text)}"
    path.write_bytes(content[:8] + text.ljust(size) + content[8 + size :])


class AdapterSwitch:
    """Many finished adapters on one base: loaded once, switched in milliseconds, none active at first.

    Adapters may have any rank, alpha and target set. A pass with some of them equals, to the bit, that of a new
    pipeline which loaded them. Switching does what diffusers' `set_adapters` and `disable_lora` do, layer by layer;
    fusing would not restore the base. Load before the model is sharded or compiled; `detach` removes all.
    """

    def __init__(self, transformer: Any, files: Iterable[Path]) -> None:
        """Raises UserError as `load_adapter`."""
        self._names = {file: f"resident{index}" for index, file in enumerate(dict.fromkeys(files))}  # PEFT's names
        for file, name in self._names.items():
            load_adapter(transformer, file, name)
        self._layers = [each for each in transformer.modules() if isinstance(each, BaseTunerLayer)]
        self.use([])

    def use(self, files: Sequence[Path]) -> None:
        """Compute with the sum of these, in this order; without any, with the base alone. KeyError: not loaded."""
        names = [self._names[file] for file in files]
        for layer in self._layers:
            if layer.disable_adapters == bool(names):
                layer.enable_adapters(bool(names))
            if names:
                layer.set_adapter(names, inference_mode=True)
