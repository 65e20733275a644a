"""Tree attention as one FlexAttention kernel: which blocks of 128 tokens see each other is told by one number a token.

What hangs below a token is one range of the row (pack.py), so that `key <= query < end[key]` is the whole tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.flex_attention import flex_attention as _dense
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from hone_worker.packing.pack import TreeLayout
from hone_worker.packing.transfer import on_device

#: Rows are filled up to a multiple of this: few lengths, few compilations.
MULTIPLE = 512
_BLOCK = 128


@dataclass(frozen=True, eq=False)
class FlexPlan:
    """What a layout comes to. Made once for a micro-batch, used by every layer."""

    length: int  # of the row, filled up
    mask: BlockMask

    @classmethod
    def of(cls, layout: TreeLayout, device: torch.device) -> FlexPlan:
        ends = range_ends(layout, MULTIPLE)
        partial, full = visible_blocks(ends)
        below = on_device(ends.to(torch.int32), device)

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < below[key])

        length = len(ends)
        some, some_places = (on_device(x, device) for x in _ordered(partial))
        whole, whole_places = (on_device(x, device) for x in _ordered(full))
        mask = BlockMask.from_kv_blocks(
            some,
            some_places,
            whole,
            whole_places,
            BLOCK_SIZE=_BLOCK,
            mask_mod=sees,
            seq_lengths=(length, length),
        )
        return cls(length, mask)


def range_ends(layout: TreeLayout, multiple: int) -> Tensor:
    """int64 [N filled up]: per token, where the range of what hangs below it ends. What fills up sees itself only."""
    length = max(high for _, high in layout.spans)
    ends = torch.arange(1, length + -length % multiple + 1)
    for low, high in layout.spans:
        ends[low:high] = high
    for _, q_high, k_low, k_high in layout.blocks:
        ends[k_low:k_high].clamp_(min=q_high)
    return ends


def visible_blocks(ends: Tensor) -> tuple[Tensor, Tensor]:
    """bool [blocks, blocks] twice, queries by keys: those in which some token sees some, and where all see all."""
    by_block = ends.view(-1, _BLOCK)
    starts = torch.arange(len(by_block)) * _BLOCK
    above = starts[:, None] > starts
    full = above & (by_block.amin(1) >= starts[:, None] + _BLOCK)
    some = above & (by_block.amax(1) > starts[:, None]) | (starts[:, None] == starts)
    return some & ~full, full


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """[1, 1, rows] how many a row holds, [1, 1, rows, columns] those first."""
    counts = blocks.sum(-1, dtype=torch.int32)
    order = torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True).to(torch.int32)
    return counts[None, None], order[None, None].contiguous()


_compiled: Any = None


def flex_tree_attention(query: Tensor, key: Tensor, value: Tensor, plan: FlexPlan, scale: float) -> Tensor:
    """[1, heads, N, width] each, keys and values with as many heads as the queries or a divisor of them."""
    global _compiled
    length = query.shape[2]
    query, key, value = (pad(x, (0, 0, 0, plan.length - length)) for x in (query, key, value))
    if query.device.type == "cpu":
        # torch has no such kernel for a processor that trains. This computes every pair: for tests.
        out: Tensor = _dense(query, key, value, _same, plan.mask.as_tuple(), scale, {})[0]
    else:
        if _compiled is None:
            _compiled = torch.compile(flex_attention, dynamic=True)
        out = _compiled(
            query, key, value, block_mask=plan.mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
    return out[:, :, :length]


def _same(score: Tensor, *_where: Tensor) -> Tensor:
    return score
