"""Adapters of the layers that read the same input, as one function with a backward of its own.

For y = x Wᵀ + s x Aᵀ Bᵀ autograd would keep and convert much: x in float32, what A gives, what B adds. Here x is read
once for all layers, what A gives is one matmul, and only x and that are kept. LoRAFusion (arXiv 2510.00206) measures
that a LoRA layer is bound by memory and by nothing else.

The masters A and B are the trainer's, in float32. Copies in the base's precision are made once for each optimizer
step; what goes back to the masters is summed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from hone_worker.base.lora import LoraLinear, LoraRouter, LoraWeights, beside_ones

#: Layers of one module that read the same input in the models of transformers.
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass(frozen=True, eq=False)
class _Copies:
    """Of the layers that read one input: their adapters as the matmuls take them."""

    versions: tuple[int, ...]  # of the masters that they were made from
    a: Tensor | None  # [ranks of all, in], in the base's precision; None: no layer has an adapter
    scaled_b: list[Tensor | None]  # per layer: scale · B [out, r]
    ranks: list[slice]  # per layer: its own in `a`


class JoinedLora:
    """Gives the output of a layer under an adapter, computed with those of its neighbours."""

    def __init__(self, router: LoraRouter) -> None:
        self._neighbours: dict[str, tuple[LoraLinear, ...]] = {}
        for path, layer in router.layers.items():
            parent, _, name = path.rpartition(".")
            names = next((names for names in _TOGETHER if name in names), (name,))
            paths = [f"{parent}.{other}" if parent else other for other in names]
            beside = [router.layers[p] for p in paths if p in router.layers]
            same = tuple(other for other in beside if other.in_features == layer.in_features)
            self._neighbours[path] = same
        self._copies: WeakKeyDictionary[LoraWeights, dict[str, _Copies]] = WeakKeyDictionary()
        self.forget()

    def forget(self) -> None:
        """Lets go of outputs that no layer came for."""
        self._input: Tensor | None = None
        self._with_grad = False
        self._ready: dict[str, Tensor] = {}

    def output(self, layer: LoraLinear, x: Tensor, weights: LoraWeights) -> Tensor:
        path, with_grad = layer.path, torch.is_grad_enabled()
        if self._input is not x or self._with_grad != with_grad or path not in self._ready:
            together = self._neighbours[path]
            copies = self._copies_of(together, weights, x.dtype)
            masters = [side for other in together for side in weights.tensors.get(other.path, (None, None))]
            outputs = _Joined.apply(x, together, copies, weights.spec.scale, *masters)
            self._input, self._with_grad = x, with_grad
            self._ready = {other.path: out for other, out in zip(together, outputs, strict=True)}
        out = self._ready.pop(path)
        if not self._ready:
            self.forget()
        return out

    def _copies_of(
        self, together: tuple[LoraLinear, ...], weights: LoraWeights, dtype: torch.dtype
    ) -> _Copies:
        pairs = [weights.tensors.get(layer.path) for layer in together]
        # An optimizer's step in place raises a tensor's version.
        versions = tuple(side._version for pair in pairs if pair is not None for side in pair)
        kept = self._copies.setdefault(weights, {})
        copies = kept.get(together[0].path)
        if copies is not None and copies.versions == versions:
            return copies
        a, b, ranks, start = [], [], [], 0
        with torch.no_grad():
            for pair in pairs:
                rank = 0 if pair is None else len(pair[0])
                ranks.append(slice(start, start + rank))
                start += rank
                b.append(None if pair is None else (pair[1] * weights.spec.scale).to(dtype))
                if pair is not None:
                    a.append(pair[0].to(dtype))
            copies = kept[together[0].path] = _Copies(versions, torch.cat(a) if a else None, b, ranks)
        return copies


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layers: tuple[LoraLinear, ...],
        copies: _Copies,
        scale: float,
        *masters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        inner = None if copies.a is None else flat @ copies.a.t()
        ctx.save_for_backward(flat, inner)
        ctx.layers, ctx.copies, ctx.scale, ctx.shape = layers, copies, scale, x.shape
        ctx.set_materialize_grads(False)
        beside = beside_ones(flat) if any(layer.widened[0] is not None for layer in layers) else None
        outputs = []
        for layer, b, rank in zip(layers, copies.scaled_b, copies.ranks, strict=True):
            if b is None or inner is None:
                out = F.linear(flat, layer.matrix(), layer.bias)
            elif layer.four_bit is not None:
                out = layer.product(flat, inner[:, rank] @ b.t())
            else:
                # What the adapter adds is the matmul's summand: base and adapter are rounded once (lora.py).
                out = inner[:, rank] @ b.t()
                if layer.widened[0] is not None and beside is not None:
                    out.addmm_(beside, layer.widened[0].t())
                else:
                    if layer.bias is not None:
                        out += layer.bias
                    out.addmm_(flat, layer.weight.t())
            outputs.append(out.view(*x.shape[:-1], layer.out_features))
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        flat, inner = ctx.saved_tensors
        copies: _Copies = ctx.copies
        to_x, to_masters = ctx.needs_input_grad[0], ctx.needs_input_grad[4:]
        dx: Tensor | None = None
        d_inner = None if inner is None else torch.zeros_like(inner)
        of_masters: list[Tensor | None] = []
        for layer, b, rank, out_grad in zip(ctx.layers, copies.scaled_b, copies.ranks, grads, strict=True):
            number = len(of_masters)
            of_masters += [None, None]
            if out_grad is None:
                continue
            grad = out_grad.reshape(-1, layer.out_features)
            if to_x:
                matrix = layer.matrix()
                dx = grad @ matrix if dx is None else dx.addmm_(grad, matrix)
            if b is not None and d_inner is not None:
                d_inner[:, rank] = grad @ b
                if to_masters[number + 1]:
                    of_masters[number + 1] = _exact(grad, inner[:, rank]).mul_(ctx.scale)
        if d_inner is not None:
            if dx is not None and copies.a is not None:
                dx.addmm_(d_inner, copies.a)
            of_a = _exact(d_inner, flat) if any(to_masters[::2]) else None
            for number, (b, rank, out_grad) in enumerate(
                zip(copies.scaled_b, copies.ranks, grads, strict=True)
            ):
                if b is not None and out_grad is not None and of_a is not None and to_masters[2 * number]:
                    of_masters[2 * number] = of_a[rank]
        return None if dx is None else dx.view(ctx.shape), None, None, None, *of_masters


def _exact(one: Tensor, other: Tensor) -> Tensor:
    """oneᵀ other, in float32 at least."""
    if one.dtype.itemsize >= 4:
        return one.t() @ other
    if one.device.type == "cuda":
        return torch.mm(one.t(), other, out_dtype=torch.float32)
    return one.t().float() @ other.float()
