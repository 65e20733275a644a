"""What fused layers compute (fused_layers.py), in the part of Python that TorchScript takes (packing/scripted.py).

Pairs of a beginning and an end stand for slices. Lists that TorchScript is given have one entry for each layer that
reads the same input.
"""

# No `from __future__ import annotations`: TorchScript reads the types.
import torch
from torch import Tensor
from torch.nn import functional as F

from hone_worker.base.products import add_over_rows, product, product_onto, steps_of
from hone_worker.packing.scripted import scripted


def _inverse_rms_into(x: Tensor, eps: float, out: Tensor) -> None:
    """[..., 1] of the root of the mean square over the last dimension."""
    torch.linalg.vector_norm(x, 2.0, [-1], True, out=out)
    out.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _through_norm(grad: Tensor, normed: Tensor) -> Tensor:
    """The gradient of x / rms(x) but for the factor 1 / rms(x), in `grad`'s place."""
    along = (grad * normed).sum(-1, keepdim=True).div_(normed.shape[-1])
    return grad.addcmul_(normed, along, value=-1.0)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(1, [-1, 2]))


def _ordered(x: Tensor, order: Tensor | None) -> Tensor:
    return x if order is None else x.index_select(0, order)


@scripted
def joined_matrix(
    weights: list[Tensor],
    orders: list[Tensor | None],
    a: list[Tensor | None],
    b: list[Tensor | None],
    scale: float,
    norm: Tensor | None,
) -> Tensor:
    """[out of all, in]: W + scale · BA, and the norm's weights."""
    count = 0
    for weight in weights:
        count += weight.shape[0]
    result = weights[0].new_empty([count, weights[0].shape[1]])
    start = 0
    for number, plain in enumerate(weights):
        weight = _ordered(plain, orders[number])
        rows = result[start : start + weight.shape[0]]
        one, other = a[number], b[number]
        if one is None or other is None:
            rows.copy_(weight)
        else:
            torch.addmm(weight, _ordered(other, orders[number]), one, beta=1, alpha=scale, out=rows)
        start += weight.shape[0]
    return result if norm is None else result.mul_(norm)


@scripted
def joined_adapters(
    a: list[Tensor],
    b: list[Tensor],
    orders: list[Tensor | None],
    starts: list[int],
    outputs: int,
    norm: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """All A one below the other, with the norm's weights; all B as blocks of [ranks, outputs] with zeros beside them."""
    joined = torch.cat(a)
    if norm is not None:
        joined.mul_(norm)
    blocks = joined.new_zeros([joined.shape[0], outputs])
    rank = 0
    for number, one in enumerate(b):
        start = starts[number]
        blocks[rank : rank + one.shape[1], start : start + one.shape[0]] = _ordered(one, orders[number]).t()
        rank += one.shape[1]
    return joined, blocks


@scripted
def parted_adapters(
    of_a: Tensor,
    of_b: Tensor,
    ranks: list[int],
    starts: list[int],
    sizes: list[int],
    orders: list[Tensor | None],
    scale: float,
    norm: Tensor | None,
) -> list[Tensor]:
    """A's and B's gradient of each layer, of the joined ones."""
    of_a.mul_(scale)
    if norm is not None:
        # In the norm's place A was multiplied, so what B was multiplied with is what it should be.
        of_a.mul_(norm)
    found: list[Tensor] = []
    rank = 0
    for number, count in enumerate(ranks):
        start = starts[number]
        part = of_b[rank : rank + count, start : start + sizes[number]].t().mul(scale).contiguous()
        order = orders[number]
        if order is not None:
            part = torch.empty_like(part).index_copy_(0, order, part)
        found.append(of_a[rank : rank + count])
        found.append(part)
        rank += count
    return found


def _add_adapters(x: Tensor, grad: Tensor, adapters: list[Tensor], wide: bool) -> None:
    """To the gradients of joined adapters: rows of the input, and the gradient of all outputs. [] of none."""
    if len(adapters) == 4:
        a, b, of_a, of_b = adapters[0], adapters[1], adapters[2], adapters[3]
        add_over_rows(of_b, product(x, a, wide), grad, wide)
        add_over_rows(of_a, product(grad, b, wide), x, wide)


@scripted
def project(
    x: Tensor, matrix: Tensor, bias: Tensor | None, eps: float, most: int, wide: bool
) -> tuple[Tensor, Tensor]:
    """The normed rows times the matrix, and 1 / rms of each."""
    joined = x.new_empty([x.shape[0], matrix.shape[0]])
    rms = x.new_empty([x.shape[0], 1])
    for low, high in steps_of(x.shape[0], most):
        row, inverse, out = x[low:high], rms[low:high], joined[low:high]
        _inverse_rms_into(row, eps, inverse)
        out.copy_(product(row * inverse, matrix, wide))
        if bias is not None:
            out.add_(bias)
    return joined, rms


@scripted
def project_backward(
    x: Tensor,
    rms: Tensor,
    d_joined: Tensor,
    matrix: Tensor | None,
    into: Tensor,
    adapters: list[Tensor],
    most: int,
    wide: bool,
) -> None:
    """Adds the gradient towards x `into` what is there, unless the matrix is None, and that of the adapters."""
    for low, high in steps_of(x.shape[0], most):
        inverse, grad = rms[low:high], d_joined[low:high]
        normed = x[low:high] * inverse
        _add_adapters(normed, grad, adapters, wide)
        if matrix is not None:
            d_normed = _through_norm(product(grad, matrix.t(), wide), normed)
            into[low:high].addcmul_(d_normed, inverse)


@scripted
def after_attention(
    residual: Tensor,
    onward: Tensor,
    out_matrix: Tensor,
    out_bias: Tensor | None,
    eps: float,
    gate_up_matrix: Tensor,
    gate_up_bias: Tensor | None,
    down_matrix: Tensor,
    down_bias: Tensor | None,
    most: int,
    wide: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The layer's result; what lies before its MLP, 1 / rms of that, and gates and ups in pieces of rows."""
    middle = torch.empty_like(residual)
    middle_rms = residual.new_empty([residual.shape[0], 1])
    result = torch.empty_like(residual)
    gates_ups: list[Tensor] = []
    for low, high in steps_of(residual.shape[0], most):
        between, inverse, out = middle[low:high], middle_rms[low:high], result[low:high]
        between.copy_(product_onto(residual[low:high], onward[low:high], out_matrix, wide))
        if out_bias is not None:
            between.add_(out_bias)
        _inverse_rms_into(between, eps, inverse)
        both = product(between * inverse, gate_up_matrix, wide)
        gates_ups.append(both)
        if gate_up_bias is not None:
            both.add_(gate_up_bias)
        gate, up = both.chunk(2, dim=1)
        out.copy_(product_onto(between, F.silu(gate).mul_(up), down_matrix, wide))
        if down_bias is not None:
            out.add_(down_bias)
    return result, middle, middle_rms, gates_ups


@scripted
def after_attention_backward(
    grad: Tensor,
    onward: Tensor,
    middle: Tensor,
    middle_rms: Tensor,
    gates_ups: list[Tensor],
    out_matrix: Tensor,
    gate_up_matrix: Tensor,
    down_matrix: Tensor,
    of_out: list[Tensor],
    of_gate_up: list[Tensor],
    of_down: list[Tensor],
    most: int,
    wide: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients towards what the attention gave and towards the residual; those of adapters are added."""
    d_onward = torch.empty_like(onward)
    d_middle = torch.empty_like(middle)
    for number, (low, high) in enumerate(steps_of(middle.shape[0], most)):
        of_result, gate_up, inverse = grad[low:high], gates_ups[number], middle_rms[low:high]
        gate, up = gate_up.chunk(2, dim=1)
        opened = F.silu(gate)
        _add_adapters(opened * up, of_result, of_down, wide)
        d_product = product(of_result, down_matrix.t(), wide)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=1)
        torch.mul(d_product, opened, out=d_up)
        torch.ops.aten.silu_backward(d_product.mul_(up), gate, grad_input=d_gate)
        normed = middle[low:high] * inverse
        _add_adapters(normed, d_gate_up, of_gate_up, wide)
        d_normed = _through_norm(product(d_gate_up, gate_up_matrix.t(), wide), normed)
        d_rows = d_middle[low:high]
        torch.addcmul(of_result, d_normed, inverse, value=1, out=d_rows)
        _add_adapters(onward[low:high], d_rows, of_out, wide)
        d_onward[low:high] = product(d_rows, out_matrix.t(), wide)
    return d_onward, d_middle


@scripted
def turn_heads(
    part: Tensor, weight: Tensor, eps: float, dim: int, turn: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Queries and keys, normed and at their positions; and 1 / rms of each head."""
    result = torch.empty_like(part, memory_format=torch.contiguous_format)
    heads = part.unflatten(1, [-1, dim])
    rms = part.new_empty([heads.shape[0], heads.shape[1], 1])
    for low, high in steps_of(part.shape[0], most):
        rows, inverse, out = heads[low:high], rms[low:high], result[low:high]
        _inverse_rms_into(rows, eps, inverse)
        torch.mul(rows, inverse, out=out.unflatten(1, [-1, dim]))
        out.mul_(weight)
        _complex(out).mul_(turn[low:high])
    return result, rms


@scripted
def turn_heads_back(
    part: Tensor, before: Tensor, rms: Tensor, weight: Tensor, dim: int, back: Tensor, most: int
) -> None:
    """The gradient of `turn_heads`, in the place of the gradient of what it gives. `before` is what it was given."""
    heads = before.unflatten(1, [-1, dim])
    for low, high in steps_of(part.shape[0], most):
        rows, inverse = part[low:high], rms[low:high]
        _complex(rows).mul_(back[low:high])
        grad = (rows * weight).unflatten(1, [-1, dim])
        grad = _through_norm(grad, heads[low:high] * inverse)
        torch.mul(grad, inverse, out=rows.unflatten(1, [-1, dim]))
