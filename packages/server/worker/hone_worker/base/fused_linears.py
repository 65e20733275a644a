"""Linear layers that read one input, as a single matrix with everything in it: the adapter, and the norm before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hone_worker.base.lora import LoraLinear, LoraWeights
from hone_worker.base.products import add_over_rows, product

#: A [r, in] and B [out, r] of one layer.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Reader:
    layers: tuple[LoraLinear, ...]
    #: Of the norm that the input has been through all but for this factor.
    norm: Tensor | None
    #: Per layer: which of its outputs comes at each place; None for its own order.
    orders: tuple[Tensor | None, ...]
    bias: Tensor | None

    @classmethod
    def of(
        cls, layers: Sequence[LoraLinear], norm: Tensor | None = None, orders: Sequence[Tensor | None] = ()
    ) -> Reader:
        orders = tuple(orders) or (None,) * len(layers)
        if any(layer.four_bit is not None or layer.widened[0] is not None for layer in layers):
            raise ValueError("a layer's weight is not its own matrix")
        bias = None
        if any(layer.bias is not None for layer in layers):
            parts = []
            for layer, order in zip(layers, orders, strict=True):
                own = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.data
                parts.append(own if order is None else own[order])
            bias = torch.cat(parts)
        return cls(tuple(layers), norm, orders, bias)

    def pairs(self, weights: LoraWeights | None) -> list[Pair | None]:
        return [None if weights is None else weights.tensors.get(layer.path) for layer in self.layers]

    def matrix(self, pairs: Sequence[Pair | None], scale: float) -> Tensor:
        """[out of all, in]: W + scale · BA, and the norm's weights. A copy, to be let go of."""
        if len(self.layers) == 1 and pairs[0] is None and self.norm is None:
            return self.layers[0].weight.detach()
        result = self.layers[0].weight.new_empty(
            sum(layer.out_features for layer in self.layers), self.layers[0].in_features
        )
        start = 0
        for layer, order, pair in zip(self.layers, self.orders, pairs, strict=True):
            rows = result[start : start + layer.out_features]
            weight = layer.weight.detach()
            weight = weight if order is None else weight.index_select(0, order)
            if pair is None:
                rows.copy_(weight)
            else:
                a, b = (side.detach() for side in pair)
                torch.addmm(weight, _ordered(b, order), a, alpha=scale, out=rows)
            start += layer.out_features
        return result if self.norm is None else result.mul_(self.norm)


def _ordered(b: Tensor, order: Tensor | None) -> Tensor:
    return b if order is None else b.index_select(0, order)


class ReaderGradient:
    """Of the adapters of a reader's layers, summed over pieces of rows. Nothing is computed where there are none.

    The adapters go through as one: A's one below the other, and B's as blocks of a matrix with zeros beside them. A few
    large products take less time than many small ones, though they multiply more.
    """

    def __init__(self, reader: Reader, pairs: Sequence[Pair | None], scale: float, wide: bool) -> None:
        self._reader, self._scale, self._wide = reader, scale, wide
        #: Of each layer that has an adapter: its ranks, its outputs, and their order.
        self._members: list[tuple[slice, slice, Tensor | None]] = []
        sides, found, rank, start = [], [], 0, 0
        for layer, order, pair in zip(reader.layers, reader.orders, pairs, strict=True):
            if pair is not None:
                a, b = (side.detach() for side in pair)
                self._members.append((slice(rank, rank + len(a)), slice(start, start + len(b)), order))
                sides.append(a)
                found.append(_ordered(b, order))
                rank += len(a)
            start += layer.out_features
        if not sides:
            return
        self._a = torch.cat(sides) if reader.norm is None else torch.cat(sides).mul_(reader.norm)
        self._b = self._a.new_zeros(rank, start)
        for (ranks, outputs, _), b in zip(self._members, found, strict=True):
            self._b[ranks, outputs] = b.t()
        self._of_a, self._of_b = torch.zeros_like(self._a), torch.zeros_like(self._b)

    def add(self, x: Tensor, grad: Tensor) -> None:
        """Rows of the input (without the norm's weights), and the gradient of all outputs."""
        if not self._members:
            return
        add_over_rows(self._of_b, product(x, self._a, self._wide), grad, self._wide)
        add_over_rows(self._of_a, product(grad, self._b, self._wide), x, self._wide)

    def result(self) -> list[Tensor]:
        """A's and B's gradient of each layer that has an adapter, in the order of `Reader.pairs`."""
        if not self._members:
            return []
        self._of_a.mul_(self._scale)
        if self._reader.norm is not None:
            # In the norm's place A was multiplied, so what B was multiplied with is what it should be.
            self._of_a.mul_(self._reader.norm)
        found = []
        for ranks, outputs, order in self._members:
            of_b = self._of_b[ranks, outputs].t().mul(self._scale).contiguous()
            if order is not None:
                of_b = torch.empty_like(of_b).index_copy_(0, order, of_b)
            found += [self._of_a[ranks], of_b]
        return found
