"""Linear layers that read one input, as a single matrix with everything in it: the adapter, and the norm before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hone_worker.base.layer_math import joined_adapters, joined_matrix, parted_adapters
from hone_worker.base.lora import LoraLinear, LoraWeights

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
        return joined_matrix(
            [layer.weight.detach() for layer in self.layers],
            list(self.orders),
            [None if pair is None else pair[0].detach() for pair in pairs],
            [None if pair is None else pair[1].detach() for pair in pairs],
            scale,
            self.norm,
        )


class ReaderGradient:
    """Of the adapters of a reader's layers, summed over pieces of rows. Nothing is computed where there are none.

    The adapters go through as one: A's one below the other, and B's as blocks of a matrix with zeros beside them. A few
    large products take less time than many small ones, though they multiply more.
    """

    def __init__(self, reader: Reader, pairs: Sequence[Pair | None], scale: float) -> None:
        self._norm, self._scale = reader.norm, scale
        # Of each layer that has an adapter.
        a: list[Tensor] = []
        b: list[Tensor] = []
        self._starts: list[int] = []
        self._orders: list[Tensor | None] = []
        start = 0
        for layer, order, pair in zip(reader.layers, reader.orders, pairs, strict=True):
            if pair is not None:
                a.append(pair[0].detach())
                b.append(pair[1].detach())
                self._starts.append(start)
                self._orders.append(order)
            start += layer.out_features
        self._ranks, self._sizes = [len(one) for one in a], [len(one) for one in b]
        #: What layer_math.py adds to: the adapters and then their gradients; [] of none.
        self.adapters: list[Tensor] = []
        if a:
            joined = joined_adapters(a, b, self._orders, self._starts, start, reader.norm)
            self.adapters = [*joined, *(torch.zeros_like(one) for one in joined)]

    def result(self) -> list[Tensor]:
        """A's and B's gradient of each layer that has an adapter, in the order of `Reader.pairs`."""
        if not self.adapters:
            return []
        _, _, of_a, of_b = self.adapters
        return parted_adapters(
            of_a, of_b, self._ranks, self._starts, self._sizes, self._orders, self._scale, self._norm
        )
