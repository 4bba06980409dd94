"""How a loaded denoiser computes attention: with which kernel (`model.attention`), and over how much text padding.

In: a WanTransformer3DModel; a backend of `cinelora/wan/options.py`. Out: the same model, whose attention uses it.

Same bytes again (`train.deterministic`, on a GPU): whether a kernel gives them depends on card, driver, packages
and shape, so no recipe is trusted. Each is tried at the trial's shape, and the first that gives equal bytes is used.

Short text (`model.short_text`): the Wan pipeline pads every text to 512 states with zero rows. Equal rows stay equal in
every layer, whatever the weights are, so the padding is computed once: a token that occurs m times adds log m to its
logit. The result equals attention over 512 tokens to rounding, also under LoRA and in the gradient. It halves the time
at small sizes and saves nothing at 14B, where the video has a hundred times as many tokens. The text part of
cross-attention then stays with torch, since few kernels take a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import (
    WanAttnProcessor,
    _get_added_kv_projections,
    _get_qkv_projections,
)
from torch.nn.functional import scaled_dot_product_attention

from cinelora import distributed
from cinelora.core.cli import UserError
from cinelora.core.config import TrialConfig
from cinelora.wan.options import BACKENDS

PROBE_TOKENS = 16
PARTS = ("query", "key", "value")
IMAGE_TOKENS = 257  # of the first frame, from CLIP ViT-H/14


def use_attention(transformer: Any, name: str, dtype: torch.dtype) -> None:
    """Compute all attention of `transformer` with backend `name`. UserError with those that work on this worker."""
    head_dim = transformer.config.attention_head_dim
    if (reason := backend_error(name, dtype, head_dim)) is not None:
        found = [each for each in BACKENDS if not each.endswith("_hub") and not backend_error(each, dtype, head_dim)]
        raise UserError(f"model.attention={name}: {reason}; this worker has {', '.join(found)}")
    with attention_backend("native"):  # restores the default of the process, which the next line also sets
        transformer.set_attention_backend(name)


def backend_error(name: str, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this process cannot compute attention and its gradient with backend `name`; None if it can."""
    shape = (1, PROBE_TOKENS, 1, head_dim)
    query, key, value = (
        torch.ones(shape, dtype=dtype, device=distributed.device_name(), requires_grad=True) for _ in "qkv"
    )
    try:
        with attention_backend(name):
            dispatch_attention_fn(query, key, value).sum().backward()
    except Exception as error:  # each kernel refuses with an exception of its own
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@dataclass(frozen=True)
class Kernel:
    """A backend of diffusers. `strict`: under torch's deterministic algorithms, where flash attention, for one, adds in
    a fixed order and takes longer, and cuDNN's refuses to run.
    """

    backend: str
    strict: bool


# In the order of their speed; the last needs a matrix of tokens x tokens.
KERNELS = (
    Kernel("_native_cudnn", False),
    Kernel("_native_flash", True),
    Kernel("_native_efficient", True),
    Kernel("_native_math", True),
)
STRICT = "_cinelora_strict"  # attribute of a denoiser: whether it runs under torch's deterministic algorithms
Attend = Callable[[Kernel, int], Sequence[torch.Tensor]]  # kernel, number of keys -> output and gradients


def use_deterministic(transformer: Any, config: TrialConfig) -> dict[str, Any] | None:
    """On a GPU: with `train.deterministic`, kernels that give the same bytes again; all workers call this together.

    The record of the choice, None where there is nothing to choose. UserError if no kernel does.
    """
    if distributed.device_name() == "cpu":
        return None
    torch.backends.cudnn.deterministic = config.train.deterministic
    if not config.train.deterministic:
        return None
    torch.backends.cudnn.benchmark = False
    return choose_kernel(transformer, config)


def choose_kernel(transformer: Any, config: TrialConfig) -> dict[str, Any]:
    """Give `transformer` the first kernel whose output and gradients are equal twice, at the shape of its training.

    The record of it: the kernel, and why each before it was refused.
    """
    model, shape = config.model, transformer.config
    kernels: Sequence[Kernel] = KERNELS
    if model.attention:
        kernels = [Kernel(model.attention, strict) for strict in (False, True)]
    elif model.sequence_workers > 1:
        kernels = [each for each in kernels if BACKENDS[each.backend].splits]
    if model.short_text:  # part of cross-attention stays with torch's choice
        kernels = [each for each in kernels if each.strict]
    count = config.train.windows_at_once(max(1, distributed.data_group(model.sequence_workers).count))
    heads = shape.num_attention_heads // model.sequence_workers
    queries = (count, config.data.video_tokens, heads, shape.attention_head_dim)
    dtype = getattr(torch, model.dtype.value)
    kernel, refused = first_deterministic(kernels, partial(_attend, queries, dtype), config)
    use_attention(transformer, kernel.backend, dtype)
    setattr(transformer, STRICT, kernel.strict)
    return asdict(kernel) | {"refused": refused}


def first_deterministic(kernels: Sequence[Kernel], attend: Attend, config: TrialConfig) -> tuple[Kernel, list[str]]:
    """The first of `kernels` that gives equal bytes twice on every worker, and what those before it did instead.

    UserError, with these reasons, if there is none.
    """
    reasons: list[str] = []
    for kernel in kernels:
        found = [each for each in distributed.gather_objects(_difference(kernel, attend, config)) if each]
        if not found:
            return kernel, reasons
        reasons.append(f"{kernel.backend}{' (deterministic algorithms)' * kernel.strict}: {found[0]}")
    free = "leave model.attention empty, or " * bool(config.model.attention)
    raise UserError(
        f"train.deterministic=true: no attention kernel here gives the same bytes twice ({'; '.join(reasons)}); "
        f"{free}set train.deterministic=false, whose results differ from run to run by rounding"
    )


def _difference(kernel: Kernel, attend: Attend, config: TrialConfig) -> str | None:
    """What of two equal calls differs, or why the kernel cannot run; None if they are equal."""
    for keys in (config.data.video_tokens, TEXT_TOKENS, IMAGE_TOKENS):
        try:
            pairs = zip(attend(kernel, keys), attend(kernel, keys), strict=True)
            for name, (one, two) in zip(("output", *("gradient of " + each for each in PARTS)), pairs, strict=True):
                if not torch.equal(_bytes(one), _bytes(two)):
                    return f"two runs with {keys} keys differ in the {name}"
        except Exception as error:  # each kernel refuses with an exception of its own
            return _reason(error)
    return None


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def _attend(queries: tuple[int, ...], dtype: torch.dtype, kernel: Kernel, keys: int) -> list[torch.Tensor]:
    """Output, and gradients of query, key and value, of fixed random inputs. `queries`: shape (B, L, H, D)."""
    device = distributed.device_name()
    generator = torch.Generator(device).manual_seed(0)
    key_shape = (queries[0], keys, *queries[2:])
    query, key, value, upstream = (
        torch.randn(shape, generator=generator, dtype=dtype, device=device)
        for shape in (queries, key_shape, key_shape, queries)
    )
    inputs = [each.requires_grad_() for each in (query, key, value)]
    with strict_algorithms(kernel.strict), attention_backend(kernel.backend):
        out = dispatch_attention_fn(query, key, value)
        return [out.detach(), *torch.autograd.grad(out, inputs, upstream)]


@contextmanager
def strict_algorithms(on: bool) -> Iterator[None]:
    """Within, torch's deterministic algorithms where `on`; new memory is not filled with NaN, which takes time."""
    if not on:
        yield
        return
    memory: Any = torch.utils.deterministic  # type: ignore[attr-defined]  # no stub
    before, filled = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled


def as_chosen(model: Any) -> AbstractContextManager[None]:
    """Within, forward and backward passes of a denoiser, bare or inside an engine, run as its kernel was tried."""
    return strict_algorithms(getattr(getattr(model, "module", model), STRICT, False))


TEXT_TOKENS = 512  # hard-coded in the attention processor: another length silently mixes text and image tokens
MASKED = -1e9


def short_text(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, L <= 512, D), zero after each text -> (states (B, n+1, D), logit bias (B, 1, 1, n+1)).

    n is the length of the longest text; the last row represents the 512 - length padding tokens of each text.
    """
    tokens = states.shape[1]
    counted = torch.arange(1, tokens + 1, device=states.device)
    lengths = (states.ne(0).any(-1) * counted).amax(1)
    longest = int(lengths.max())
    kept = torch.cat([states[:, :longest], states.new_zeros(states.shape[0], 1, states.shape[2])], dim=1)
    real = torch.arange(longest, device=states.device)[None] < lengths[:, None]
    paddings = torch.where(lengths < TEXT_TOKENS, (TEXT_TOKENS - lengths).clamp_min(1).log(), MASKED)
    bias = torch.where(real, 0.0, MASKED)
    return kept, torch.cat([bias, paddings[:, None]], dim=1)[:, None, None].to(states.dtype)


class ShortTextAttention(WanAttnProcessor):
    """Stock self-attention; cross-attention over [image tokens | short text] with `bias` on the text logits."""

    def __init__(self) -> None:
        super().__init__()
        self.bias: torch.Tensor | None = None

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, *rest: Any) -> Any:
        if encoder_hidden_states is None or self.bias is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *rest)
        images = encoder_hidden_states.shape[1] - self.bias.shape[-1]
        image, text = encoder_hidden_states[:, :images], encoder_hidden_states[:, images:]
        query, key, value = _get_qkv_projections(attn, hidden_states, text)
        image_key, image_value = _get_added_kv_projections(attn, image)

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        query = heads(attn.norm_q(query))
        out = scaled_dot_product_attention(query, heads(attn.norm_k(key)), heads(value), attn_mask=self.bias)
        image_key = heads(attn.norm_added_k(image_key))
        out = out + scaled_dot_product_attention(query, image_key, heads(image_value))
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


def use_short_text(transformer: Any) -> None:
    """Make a WanTransformer3DModel shorten the text of every forward pass."""
    attention = ShortTextAttention()
    transformer.set_attn_processor(attention)

    def shorten(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states, attention.bias = short_text(kwargs["encoder_hidden_states"])
        return args, {**kwargs, "encoder_hidden_states": states}

    transformer.register_forward_pre_hook(shorten, with_kwargs=True)
