"""Tree attention as few flash calls of many lengths: one for all chains, and one for each depth of the trees.

The algorithm is that of `tree_attention.py`, laid out for a GPU, where a call costs more than what it computes on
a short range: all ranges that no token sees twice go into one call. The kernel's backward gets the joined output
and sums, as ring attention does in torch's `distributed/tensor/experimental/_context_parallel`.

On a processor the same code runs over torch's flash kernel for it, a sequence at a time. That is no fast way there;
it is how all but the GPU's two calls is tested without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hone_worker.packing.pack import TreeLayout
from hone_worker.packing.transfer import on_device

_cpu_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class Lengths(NamedTuple):
    """Sequences laid end to end, as the kernel wants them: where each begins, and the longest."""

    starts: Tensor  # int32 [sequences + 1]
    longest: int

    @classmethod
    def of(cls, sizes: Sequence[int], device: torch.device) -> Lengths:
        starts = torch.tensor([0, *sizes]).cumsum(0).to(torch.int32)
        return cls(on_device(starts, device), max(sizes))


class Level(NamedTuple):
    """Queries and keys of the blocks at one depth. No query is in two of them, a key may be in several."""

    query_places: Tensor  # int64 [queries]
    key_places: Tensor  # int64 [keys]
    queries: Lengths
    keys: Lengths


@dataclass(frozen=True, eq=False)
class VarlenPlan:
    """What a layout comes to. Made once for a micro-batch, used by every layer."""

    spans: Lengths
    levels: list[Level]

    @classmethod
    def of(cls, layout: TreeLayout, device: torch.device) -> VarlenPlan:
        spans = sorted(layout.spans)
        # A row is its chains, one after another.
        assert all(end == start for (_, end), (start, _) in pairwise(spans))
        depths: list[list[tuple[int, int, int, int]]] = []
        around: list[int] = []  # where the blocks end that this one lies in
        for block in sorted(layout.blocks, key=lambda b: (b[0], -b[1])):
            while around and around[-1] <= block[0]:
                around.pop()
            if len(around) == len(depths):
                depths.append([])
            depths[len(around)].append(block)
            around.append(block[1])
        return cls(
            Lengths.of([high - low for low, high in spans], device),
            [_level(blocks, device) for blocks in depths],
        )


def _level(blocks: list[tuple[int, int, int, int]], device: torch.device) -> Level:
    queries = torch.cat([torch.arange(low, high) for low, high, _, _ in blocks])
    keys = torch.cat([torch.arange(low, high) for _, _, low, high in blocks])
    return Level(
        on_device(queries, device),
        on_device(keys, device),
        Lengths.of([high - low for low, high, _, _ in blocks], device),
        Lengths.of([high - low for _, _, low, high in blocks], device),
    )


def varlen_attention(query: Tensor, key: Tensor, value: Tensor, plan: VarlenPlan, scale: float) -> Tensor:
    """[1, heads, N, width] each, keys and values with as many heads as the queries or a divisor of them."""
    # [N, heads, width], in which a token's heads lie side by side: most models have them so already.
    along = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    out: Tensor = _VarlenAttention.apply(*along, plan, scale)
    return out.transpose(0, 1)[None]


class _VarlenAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, plan, scale):
        out, lse, unused = _forward(query, key, value, plan.spans, plan.spans, True, scale)
        if plan.levels:
            exact = torch.promote_types(torch.float32, query.dtype)
            joined = out.to(exact, copy=True)
            for at, above, queries, keys in plan.levels:
                part, part_lse, _ = _forward(query[at], key[above], value[above], queries, keys, False, scale)
                before = lse[:, at]
                both = torch.logaddexp(before, part_lse)
                kept, new = ((x - both).exp_().t()[..., None] for x in (before, part_lse))
                joined[at] = joined[at] * kept + part * new
                lse[:, at] = both
            out = joined.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, lse, *unused)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        query, key, value, out, lse, *unused = ctx.saved_tensors
        plan, scale = ctx.plan, ctx.scale
        grad = grad.contiguous()
        grads = _backward(grad, query, key, value, out, lse, plan.spans, plan.spans, True, scale, unused)
        if plan.levels:
            exact = torch.promote_types(torch.float32, query.dtype)
            sums = [g.to(exact, copy=True) for g in grads]
            for at, above, queries, keys in plan.levels:
                parts = _backward(
                    grad[at],
                    query[at],
                    key[above],
                    value[above],
                    out[at],
                    lse[:, at].contiguous(),
                    queries,
                    keys,
                    False,
                    scale,
                    unused,
                )
                for total, where, part in zip(sums, (at, above, above), parts, strict=True):
                    total.index_add_(0, where, part.to(exact))
            return *(total.to(query.dtype) for total in sums), None, None
        return *grads, None, None


def _forward(
    query: Tensor, key: Tensor, value: Tensor, queries: Lengths, keys: Lengths, causal: bool, scale: float
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Output [N, heads, width], logarithms of the sums [heads, N], and what the backward wants for dropout."""
    if query.device.type == "cpu":
        return (*_forward_on_cpu(query, key, value, queries, keys, causal, scale), ())
    out, lse, seed, unused, _ = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        queries.starts,
        keys.starts,
        queries.longest,
        keys.longest,
        0.0,  # dropout
        causal,
        False,  # return_debug_mask
        scale=scale,
    )
    # Some releases padded the sums by sequence.
    assert lse.shape == query.shape[1::-1], "this torch's flash kernel lays its sums out in another way"
    return out, lse, (seed, unused)


def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    queries: Lengths,
    keys: Lengths,
    causal: bool,
    scale: float,
    unused: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    if query.device.type == "cpu":
        return _backward_on_cpu(grad, query, key, value, out, lse, queries, keys, causal, scale)
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
        grad,
        query,
        key,
        value,
        out,
        lse,
        queries.starts,
        keys.starts,
        queries.longest,
        keys.longest,
        0.0,  # dropout
        causal,
        *unused,
        scale=scale,
    )
    return grads


def _sequences(queries: Lengths, keys: Lengths) -> list[tuple[slice, slice]]:
    ends = [[slice(*pair) for pair in pairwise(s)] for s in (queries[0].tolist(), keys[0].tolist())]
    return list(zip(*ends, strict=True))


def _headwise(x: Tensor, at: slice, groups: int = 1) -> Tensor:
    """[1, heads, length, width], each head `groups` times: the processor's kernel knows no shared heads."""
    return x[at].transpose(0, 1).repeat_interleave(groups, 0)[None]


def _forward_on_cpu(
    query: Tensor, key: Tensor, value: Tensor, queries: Lengths, keys: Lengths, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    out = torch.empty_like(query)
    lse = query.new_empty(query.shape[1::-1], dtype=torch.promote_types(torch.float32, query.dtype))
    for at, above in _sequences(queries, keys):
        q, k, v = _headwise(query, at), _headwise(key, above, groups), _headwise(value, above, groups)
        part, part_lse = _cpu_forward(q, k, v, 0.0, causal, scale=scale)
        out[at], lse[:, at] = part[0].transpose(0, 1), part_lse[0]
    return out, lse


def _backward_on_cpu(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    queries: Lengths,
    keys: Lengths,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    shared = key.shape[1]
    groups = query.shape[1] // shared
    grads: list[Any] = [torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)]
    for at, above in _sequences(queries, keys):
        dq, dk, dv = _cpu_backward(
            _headwise(grad, at),
            _headwise(query, at),
            _headwise(key, above, groups),
            _headwise(value, above, groups),
            _headwise(out, at),
            lse[None, :, at],
            0.0,
            causal,
            scale=scale,
        )
        grads[0][at] = dq[0].transpose(0, 1)
        for total, part in zip(grads[1:], (dk, dv), strict=True):
            total[above] = part[0].unflatten(0, (shared, groups)).sum(1).transpose(0, 1)
    return grads[0], grads[1], grads[2]
