"""Attention in a row of packed trees (pack.py), without a mask the size of the row squared.

A token sees the part of its own chain up to itself, and for each chain above it a prefix of that. Each of
these parts is one call over contiguous ranges; their softmaxes are joined by the logarithms of their sums.
Given the joined output and sum, the kernel's own backward yields each part's share of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from hone_worker.packing.flex import FlexPlan, flex_tree_attention
from hone_worker.packing.kernel_ranges import Ranges
from hone_worker.packing.pack import TreeLayout
from hone_worker.packing.range_math import attend, attend_backward
from hone_worker.packing.varlen import VarlenPlan, varlen_attention
from hone_worker.process.errors import HoneWorkerError

#: Below this length the kernel's backward is up to five times as fast in float32 as in bfloat16; at 600 tokens
#: they are equal, at 2000 bfloat16 is 1.4 times as fast (one core, AVX-512 without AMX).
_SHORT = 600

#: Ways of `ComputePaths`: what a layout comes to, and the attention that follows it.
_PLANNED: dict[str, tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    "varlen": (VarlenPlan.of, varlen_attention),
    "flex": (FlexPlan.of, flex_tree_attention),
}


@dataclass
class Trees:
    layout: TreeLayout
    way: str
    #: int64, ascending, each once: the tokens whose hidden states are read. None: all.
    wanted: Tensor | None
    masks: dict[tuple[int, int], Tensor | None]
    plan: Any = None  # of a way that makes one of the layout
    turn: tuple[Tensor, Tensor] | None = None  # of fused layers
    calls: int = 0

    @cached_property
    def ranges(self) -> Ranges:
        return Ranges.of(self.layout)

    @cached_property
    def wanted_ranges(self) -> Ranges:
        return self.ranges if self.wanted is None else self.ranges.asked_by(self.wanted.numpy())


_active: ContextVar[Trees | None] = ContextVar("hone_trees", default=None)


@contextmanager
def trees(layout: TreeLayout, way: str = "ranges", wanted: Tensor | None = None) -> Iterator[None]:
    """For the length of the `with` attention follows this layout, by this way of `ComputePaths`.

    The model's forward belongs inside. Fused layers give the hidden states that are `wanted` alone.
    """
    active = Trees(layout, way, wanted, {})
    token = _active.set(active)
    try:
        yield
    finally:
        _active.reset(token)
    if active.calls == 0:
        message = "The base's attention cannot be told what a packed row holds. Use another base."
        raise HoneWorkerError(message, code="unsupported_base", status=500)


def active_trees() -> Trees | None:
    """Of the packed row that is going through the model."""
    return _active.get()


def in_trees() -> bool:
    """Whether a packed row is going through the model: then the layout says what the mask would."""
    return _active.get() is not None


def tree_attention(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """[1, heads, N, width] each, keys and values with as many heads as the queries or a divisor of them."""
    active = _active.get()
    assert active is not None
    active.calls += 1
    # Flash kernels want values as wide as keys.
    if active.way in _PLANNED and query.shape[-1] == value.shape[-1]:
        plan_of, attend = _PLANNED[active.way]
        if active.plan is None:
            active.plan = plan_of(active.layout, query.device)
        return attend(query, key, value, active.plan, query.shape[-1] ** -0.5 if scale is None else scale)
    if active.way == "ranges" and _ranges_on(query, value):
        dtype, layout = query.dtype, active.layout
        if max(high - low for low, high in layout.spans) < _SHORT:
            query, key, value = (x.to(torch.promote_types(torch.float32, dtype)) for x in (query, key, value))
        return _TreeAttention.apply(query, key, value, active.ranges, scale).to(dtype)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return _masked(query, key, value, active, scale)


def obstacle(model: nn.Module, implementation: str, max_model_len: int) -> str | None:
    """Why rows cannot be packed for this model, in words; None where they can."""
    config: Any = getattr(model.config, "get_text_config", lambda: model.config)()
    if config._attn_implementation != implementation:
        return f"its attention is '{config._attn_implementation}', which takes no tree"
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    # A window that no sequence outgrows is plain causal attention.
    if window and slides and window < max_model_len:
        return f"its layers see the last {window} tokens only, and sequences may have {max_model_len}"
    return None


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, ranges, scale):
        out, sums = ranges_forward(query, key, value, ranges, scale)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.ranges, ctx.scale = ranges, scale
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        query, key, value, out, sums = ctx.saved_tensors
        exact = torch.promote_types(torch.float32, query.dtype)
        grads = tuple(x.new_empty(_side_by_side(x), dtype=exact).transpose(1, 2) for x in (query, key, value))
        ranges_backward(grad, query, key, value, out, sums, ctx.ranges, ctx.scale, grads)
        return *(g.to(query.dtype) for g in grads), None, None


def ranges_forward(
    query: Tensor, key: Tensor, value: Tensor, ranges: Ranges, scale: float | None
) -> tuple[Tensor, Tensor]:
    """What each token takes of the values that it sees, and the logarithm of its softmax's sum, in float32 at least.

    In memory the first is [1, N, heads, width]: what follows joins the heads of a token.
    """
    exact = torch.promote_types(torch.float32, query.dtype)
    out = query.new_empty(_side_by_side(query), dtype=exact).transpose(1, 2)
    sums = query.new_empty(query.shape[:-1], dtype=exact)
    attend(query, key, value, out, sums, ranges.runs, ranges.blocks, ranges.whole, scale)
    return out, sums


def ranges_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    ranges: Ranges,
    scale: float | None,
    into: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Writes the gradients of queries, keys and values `into` these."""
    runs, blocks, whole = ranges.runs, ranges.blocks, ranges.whole
    attend_backward(grad, query, key, value, out, sums, runs, blocks, whole, scale, *into)


def _ranges_on(query: Tensor, value: Tensor) -> bool:
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1]


def _side_by_side(x: Tensor) -> tuple[int, ...]:
    rows, heads, length, width = x.shape
    return (rows, length, heads, width)


def _masked(query: Tensor, key: Tensor, value: Tensor, active: Trees, scale: float | None) -> Tensor:
    """A tree at a time under a mask of its own: for devices whose kernels do not tell the sums."""
    parts = []
    for low, high in active.layout.trees:
        if (low, high) not in active.masks:
            chain = (low, high) in active.layout.spans
            active.masks[low, high] = None if chain else active.layout.mask(low, high, query.device)
        mask = active.masks[low, high]
        q, k, v = (x[:, :, low:high] for x in (query, key, value))
        parts.append(
            scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
        )
    return torch.cat(parts, 2)
