"""The adapter: where it sits, how it starts, how it is written. PEFT does the arithmetic.

In: a frozen WanTransformer3DModel and LoraConfig. Out: trainable parameters, and a diffusers LoRA file
that carries its alpha (without that metadata a reload silently uses alpha = r).

    W x  +  scale * B (A x)      A: (r, in) uniform(+-1/sqrt(in)),  B: (out, r) zero
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftConfig

from cinelora.config import LoraConfig, Scaling, TargetSet
from cinelora.records import whole_folder
from cinelora.seeds import generator

_ATTENTION = r"(to_q|to_k|to_v|to_out\.0)"
_IMAGE = r"(add_k_proj|add_v_proj)"
_FFN = r"ffn\.net\.(0\.proj|2)"
# Anchored: PEFT full-matches a string, whereas a list of names would match by suffix and hit both attentions.
TARGETS: dict[TargetSet, str] = {
    TargetSet.cross_text: rf"blocks\.\d+\.attn2\.{_ATTENTION}",
    TargetSet.cross: rf"blocks\.\d+\.attn2\.({_ATTENTION}|{_IMAGE})",
    TargetSet.self: rf"blocks\.\d+\.attn1\.{_ATTENTION}",
    TargetSet.attn: rf"blocks\.\d+\.(attn1\.{_ATTENTION}|attn2\.({_ATTENTION}|{_IMAGE}))",
    TargetSet.ffn: rf"blocks\.\d+\.{_FFN}",
    TargetSet.block: rf"blocks\.\d+\.(attn1\.{_ATTENTION}|attn2\.({_ATTENTION}|{_IMAGE})|{_FFN})",
}
MODULES_PER_BLOCK: dict[TargetSet, int] = {
    TargetSet.cross_text: 4,
    TargetSet.cross: 6,
    TargetSet.self: 4,
    TargetSet.attn: 10,
    TargetSet.ffn: 2,
    TargetSet.block: 12,
}
NamedParameters = list[tuple[str, torch.nn.Parameter]]


def peft_config(lora: LoraConfig) -> PeftConfig:
    return PeftConfig(
        r=lora.rank,
        lora_alpha=lora.effective_alpha,  # type: ignore[arg-type]
        use_rslora=lora.scaling is Scaling.rslora,
        target_modules=TARGETS[lora.targets],
        init_lora_weights=True,
    )


def attach(transformer: Any, lora: LoraConfig, seed: int) -> NamedParameters:
    """Add the adapter in place; returns its (name, float32 parameter) pairs sorted by name.

    Raises AssertionError if the target set did not match its modules in every block.
    """
    with torch.random.fork_rng(devices=[]):  # PEFT draws from the global generator before we overwrite A
        transformer.add_adapter(peft_config(lora))
    parameters = sorted((n, p) for n, p in transformer.named_parameters() if ".lora_" in n)
    expected = 2 * MODULES_PER_BLOCK[lora.targets] * transformer.config.num_layers
    assert len(parameters) == expected, f"{lora.targets.value}: {len(parameters)} adapter tensors, not {expected}"
    for name, parameter in parameters:
        parameter.data = _initial(name, parameter, seed).to(parameter.device)
        parameter.requires_grad_(True)
    return parameters


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


def save_adapter(folder: Path, state: dict[str, torch.Tensor], lora: LoraConfig) -> int:
    """Write `pytorch_lora_weights.safetensors` with its PEFT metadata; returns its bytes.

    `state` maps parameter names of the transformer to full tensors. Raises AssertionError for the empty
    tensors that an ungathered ZeRO-3 save would leave.
    """
    from diffusers import WanImageToVideoPipeline

    assert all(tensor.numel() > 0 for tensor in state.values()), "an adapter tensor is empty: not gathered"
    layers = {name.replace(".default.", "."): tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_folder(folder, replace=True) as temporary:
        WanImageToVideoPipeline.save_lora_weights(
            temporary,
            transformer_lora_layers=layers,
            transformer_lora_adapter_metadata=_plain(peft_config(lora).to_dict()),
        )
        for path in temporary.glob("*.safetensors"):
            _order_header(path)
    return sum(path.stat().st_size for path in folder.iterdir())


def _order_header(path: Path) -> None:
    """Sort the metadata of a safetensors file, which the library writes in random order: equal adapters, equal bytes.

    The header keeps its length, so the tensors stay where they are.
    """
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= size, f"{path}: header of {size} bytes does not hold {len(text)}"
    path.write_bytes(content[:8] + text.ljust(size) + content[8 + size :])


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """JSON-ready metadata: sets as sorted lists, so that equal adapters give equal bytes."""
    return {key: sorted(value) if isinstance(value, set) else value for key, value in metadata.items()}
