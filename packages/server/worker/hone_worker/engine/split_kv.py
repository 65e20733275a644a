"""Attention of one query a row over the cache, as Triton kernels: each row reads its own length and no more.

The query heads that share a key head are the rows of one matrix, so keys and values are read once (GQA). What a row
attends to is cut into parts, which fill the card even where few rows decode; a second kernel joins the parts by the
logarithms of their sums (flash decoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Places that a program loads at once.
BLOCK = 64
#: A matrix product in Triton has at least so many rows.
SMALLEST_DOT = 16
#: Programs that keep a card of some 130 multiprocessors busy.
ENOUGH_PROGRAMS = 512
MOST_PARTS = 64


@triton.jit
def _parts(  # type: ignore[no-untyped-def]  # of Triton's language, in which an argument is a pointer
    query,
    keys,
    values,
    rows,
    positions,
    out,
    sums,
    scale,
    query_row,
    query_head,
    key_row,
    key_head,
    key_dim,
    value_row,
    value_head,
    value_place,
    part_length,
    PARTS: tl.constexpr,
    GROUP: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
    PLACES: tl.constexpr,
):
    row, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    key_heads = tl.num_programs(1)
    # 64 bits: a large cache has more than 2³¹ numbers.
    at = tl.load(rows + row).to(tl.int64)
    end = tl.load(positions + row).to(tl.int32) + 1
    start = part * part_length
    end = tl.minimum(end, start + part_length)
    one = tl.arange(0, QUERIES)
    dim = tl.arange(0, DIM)
    place = tl.arange(0, PLACES)
    real = one[:, None] < GROUP
    q = tl.load(
        query + row.to(tl.int64) * query_row + (head * GROUP + one)[:, None] * query_head + dim[None, :],
        mask=real,
        other=0.0,
    )
    highest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, DIM], tl.float32)
    keys += at * key_row + head * key_head
    values += at * value_row + head * value_head
    for low in range(start, end, PLACES):
        here = low + place
        seen = here < end
        k = tl.load(keys + dim[:, None] * key_dim + here[None, :], mask=seen[None, :], other=0.0)
        v = tl.load(values + here[:, None] * value_place + dim[None, :], mask=seen[:, None], other=0.0)
        # In float32 without TF32; bfloat16 is not touched by this.
        scores = tl.dot(q, k, input_precision="ieee")
        scores = tl.where(seen[None, :], scores * scale, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        before = tl.exp(highest - higher)
        total = total * before + tl.sum(weights, 1)
        mixed = mixed * before[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = higher
    # A part that a row does not reach weighs nothing.
    some = total > 0
    share = mixed / tl.where(some, total, 1.0)[:, None]
    lse = tl.where(some, highest + tl.log(tl.where(some, total, 1.0)), float("-inf"))
    to = ((row * key_heads + head) * PARTS + part).to(tl.int64) * GROUP + one
    tl.store(out + to[:, None] * DIM + dim[None, :], share, mask=real)
    tl.store(sums + to, lse, mask=one < GROUP)


@triton.jit
def _join(  # type: ignore[no-untyped-def]
    parts,
    sums,
    out,
    PARTS: tl.constexpr,
    PARTS_WIDE: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(1)
    part = tl.arange(0, PARTS_WIDE)
    dim = tl.arange(0, DIM)
    at = ((row * (heads // GROUP) + head // GROUP) * PARTS + part).to(tl.int64) * GROUP + head % GROUP
    real = part < PARTS
    lse = tl.load(sums + at, mask=real, other=float("-inf"))
    # The first part is never empty: every row attends to its own place.
    weights = tl.exp(lse - tl.max(lse, 0))
    found = tl.load(parts + at[:, None] * DIM + dim[None, :], mask=real[:, None], other=0.0)
    mixed = tl.sum(found * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out + (row * heads + head).to(tl.int64) * DIM + dim, mixed.to(out.dtype.element_ty))


def split_kv(
    query: Tensor, keys: Tensor, values: Tensor, rows: Tensor, positions: Tensor, length: int, scale: float
) -> Tensor:
    """[rows, heads, dim]: query i over the places up to `positions[i]` < `length` of the cache's row `rows[i]`.

    `keys` [slots, key heads, dim, places] and `values` [slots, key heads, places, dim] are the whole cache.
    """
    count, heads, dim = query.shape
    key_heads = keys.shape[1]
    group = heads // key_heads
    query = query if query.stride(2) == 1 else query.contiguous()
    parts = max(1, min(MOST_PARTS, -(-length // BLOCK), ENOUGH_PROGRAMS // (count * key_heads)))
    part_length = -(-length // (parts * BLOCK)) * BLOCK
    parts = -(-length // part_length)
    found = torch.empty(count * heads * parts, dim, dtype=torch.float32, device=query.device)
    sums = torch.empty(count * heads * parts, dtype=torch.float32, device=query.device)
    out = torch.empty(count, heads, dim, dtype=query.dtype, device=query.device)
    _parts[(count, key_heads, parts)](
        query,
        keys,
        values,
        rows,
        positions,
        found,
        sums,
        scale,
        query.stride(0),
        query.stride(1),
        keys.stride(0),
        keys.stride(1),
        keys.stride(2),
        values.stride(0),
        values.stride(1),
        values.stride(2),
        part_length,
        PARTS=parts,
        GROUP=group,
        QUERIES=max(SMALLEST_DOT, triton.next_power_of_2(group)),
        DIM=dim,
        PLACES=BLOCK,
    )
    _join[(count, heads)](
        found, sums, out, PARTS=parts, PARTS_WIDE=triton.next_power_of_2(parts), GROUP=group, DIM=dim
    )
    return out


#: Of the norm of what is right. bfloat16 rounds by .004; a place that is left out differs by tenths.
_LIMIT = 0.02


def fault(heads: int, key_heads: int, dim: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with the kernels for such heads here, in words; None where they agree with a softmax in float32."""
    random = torch.Generator().manual_seed(0)
    length = 3 * BLOCK - 5
    keys = torch.randn(3, key_heads, dim, length, generator=random).to(device, dtype)
    values = torch.randn(3, key_heads, length, dim, generator=random).to(device, dtype)
    query = torch.randn(2, heads, dim, generator=random).to(device, dtype)
    rows, positions = torch.tensor([2, 0], device=device), torch.tensor([length - 1, BLOCK], device=device)
    found = split_kv(query, keys, values, rows, positions, length, dim**-0.5).float()
    beside = query.float().view(2, key_heads, -1, dim)
    scores = beside @ keys[rows].float() * dim**-0.5
    seen = torch.arange(length, device=device) <= positions.view(2, 1, 1, 1)
    wanted = torch.softmax(scores.masked_fill(~seen, float("-inf")), -1) @ values[rows].float()
    off = float((found - wanted.view_as(found)).norm() / wanted.norm())
    return None if off <= _LIMIT else f"what they give is off by {off:.1%}"
