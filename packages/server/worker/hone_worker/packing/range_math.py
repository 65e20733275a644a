"""The processor's flash kernel over the ranges of a packed row, in the part of Python that TorchScript takes
(packing/scripted.py). tree_attention.py says how the parts are joined."""

# No `from __future__ import annotations`: TorchScript reads the types.
import torch
from torch import Tensor

from hone_worker.packing.scripted import scripted


def _side(x: Tensor, low: int, length: int, count: int) -> Tensor:
    """[1, heads, N, …] from a place on as [count, heads, length, …]: neighbours in the row as sequences of a batch."""
    part: Tensor = x[0, :, low : low + length * count].unflatten(1, [count, length]).transpose(0, 1)
    return part


@scripted
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    runs: list[tuple[int, int, int]],
    blocks: list[tuple[int, int, int, int]],
    whole: bool,
    scale: float | None,
) -> None:
    """Writes into `out` and `sums`."""
    if not whole:
        # Of tokens that nobody asks: they take nothing from what they see, and their gradient is 0.
        out.zero_()
        sums.fill_(float("inf"))
    for low, length, count in runs:
        found, found_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            _side(query, low, length, count),
            _side(key, low, length, count),
            _side(value, low, length, count),
            0.0,
            True,
            scale=scale,
        )
        _side(out, low, length, count).copy_(found)
        _side(sums, low, length, count).copy_(found_sums)
    for q_low, q_high, k_low, k_high in blocks:
        part, part_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query[:, :, q_low:q_high],
            key[:, :, k_low:k_high],
            value[:, :, k_low:k_high],
            0.0,
            False,
            scale=scale,
        )
        before = sums[:, :, q_low:q_high]
        share = torch.sigmoid(part_sums - before).unsqueeze(-1)
        out[:, :, q_low:q_high].lerp_(part.to(out.dtype), share)
        torch.logaddexp(before, part_sums, out=before)


@scripted
def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    runs: list[tuple[int, int, int]],
    blocks: list[tuple[int, int, int, int]],
    whole: bool,
    scale: float | None,
    of_query: Tensor,
    of_key: Tensor,
    of_value: Tensor,
) -> None:
    """Writes into the last three."""
    if not whole:
        of_query.zero_()
        of_key.zero_()
        of_value.zero_()
    for low, length, count in runs:
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            _side(grad, low, length, count),
            _side(query, low, length, count),
            _side(key, low, length, count),
            _side(value, low, length, count),
            _side(out, low, length, count),
            _side(sums, low, length, count),
            0.0,
            True,
            scale=scale,
        )
        if whole:  # each token is in one span, and spans come first
            _side(of_query, low, length, count).copy_(parts[0])
            _side(of_key, low, length, count).copy_(parts[1])
            _side(of_value, low, length, count).copy_(parts[2])
        else:
            _side(of_query, low, length, count).add_(parts[0])
            _side(of_key, low, length, count).add_(parts[1])
            _side(of_value, low, length, count).add_(parts[2])
    for q_low, q_high, k_low, k_high in blocks:
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad[:, :, q_low:q_high],
            query[:, :, q_low:q_high],
            key[:, :, k_low:k_high],
            value[:, :, k_low:k_high],
            out[:, :, q_low:q_high],
            sums[:, :, q_low:q_high],
            0.0,
            False,
            scale=scale,
        )
        of_query[:, :, q_low:q_high].add_(parts[0])
        of_key[:, :, k_low:k_high].add_(parts[1])
        of_value[:, :, k_low:k_high].add_(parts[2])
