"""Linear layers that read the same input as one matmul, with what adapters add as its summand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hone_worker.base.lora import LoraLinear, beside_ones, widened

#: Of one joined layer: A of all members [ranks, in] and scale · B [ranks, out], transposed for `addmm`.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Joined:
    """Linear layers that read the same input, side by side."""

    layers: tuple[LoraLinear, ...]
    weight: Tensor | None  # [out, in]; None: of layers in 4 bits, each of which is a matmul of its own
    bias: Tensor | None
    widened: Tensor | None  # weight and bias in one

    @classmethod
    def of(cls, *layers: nn.Linear) -> Joined:
        members = [layer for layer in layers if isinstance(layer, LoraLinear)]
        assert len(members) == len(layers)
        if any(layer.four_bit is not None for layer in members):
            return cls(tuple(members), None, None, None)
        if len(members) == 1:
            (one,) = members
            alone = None if one.bias is None else one.bias.data
            return cls((one,), one.weight.data, alone, one.widened[0])
        weight = torch.cat([layer.weight.data for layer in members])
        inner = weight.shape[1]
        bias: Tensor | None = None
        if any(layer.bias is not None for layer in members):
            bias = torch.cat(
                [
                    weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.data
                    for layer in members
                ]
            )
        wide = widened(weight, bias)
        if wide is not None:
            weight = wide[:, :inner]
        start = 0
        for layer in members:
            # The model's own parameters from now on: there is one copy of the weights.
            rows = slice(start, start + layer.out_features)
            layer.weight.data = weight[rows]
            if layer.widened[0] is not None and wide is not None:
                layer.widened = (wide[rows],)
            start += layer.out_features
        return cls(tuple(members), weight, bias, wide)

    @property
    def shape(self) -> tuple[int, int]:
        """Of all layers: outputs and inputs."""
        return sum(layer.out_features for layer in self.layers), self.layers[0].in_features

    def apply(self, x: Tensor, delta: Tensor | None) -> Tensor:
        """The layers' output. `delta` is added before it is rounded, and is overwritten."""
        if self.weight is None:
            sizes = [layer.out_features for layer in self.layers]
            summands = [None] * len(sizes) if delta is None else delta.split(sizes, dim=1)
            parts = [layer.product(x, part) for layer, part in zip(self.layers, summands, strict=True)]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if delta is None:
            return F.linear(x, self.weight, self.bias)
        if self.widened is not None:
            return delta.addmm_(beside_ones(x), self.widened.t())
        if self.bias is not None:
            delta += self.bias
        return delta.addmm_(x, self.weight.t())


def linear(joined: Joined, x: Tensor, pair: Pair | None, gate: Tensor | None) -> Tensor:
    if pair is None:
        return joined.apply(x, None)
    a, b = pair
    inner = x @ a
    if gate is not None:
        inner *= gate
    return joined.apply(x, inner @ b)


def add(hidden: Tensor, joined: Joined, x: Tensor, pair: Pair | None, gate: Tensor | None) -> Tensor:
    """Adds the residual last. As the matmul's summand it would take the place of the adapter."""
    return linear(joined, x, pair, gate).add_(hidden)
