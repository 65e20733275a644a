"""LoRA inside the base model: one copy of the weights, and a router that says which adapter each row uses.

PEFT keeps the active adapter as state of every module, so a forward and its checkpointed recomputation can
see different ones, and all rows of a forward share one. Here the route is one attribute of one object, set for
the length of a `with`, and the rows of a forward may mix adapters and the bare base.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hone_worker.base.four_bit import four_bit_of
from hone_worker.process.errors import HoneWorkerError

DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MAX_RANK = 512


@dataclass(frozen=True)
class LoraSpec:
    r: int = 16
    alpha: float = 32.0
    target_modules: tuple[str, ...] = DEFAULT_TARGETS

    def __post_init__(self) -> None:
        if not 1 <= self.r <= MAX_RANK:
            raise HoneWorkerError(f"LoRA rank must be 1 to {MAX_RANK}.", code="bad_lora", param="lora.r")
        if not 0 < self.alpha < float("inf"):
            raise HoneWorkerError("LoRA alpha must be positive.", code="bad_lora", param="lora.alpha")

    @property
    def scale(self) -> float:
        return self.alpha / self.r


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """The tensors of one adapter: module path → (A [r, in], B [out, r]). Compared by identity."""

    spec: LoraSpec
    tensors: Mapping[str, tuple[Tensor, Tensor]] = field(repr=False)

    def parameters(self) -> list[Tensor]:
        """A and B of every module, in the order of their paths: the order that optimizer state follows."""
        return [tensor for path in sorted(self.tensors) for tensor in self.tensors[path]]

    def to(self, device: torch.device | str) -> LoraWeights:
        return LoraWeights(self.spec, {p: (a.to(device), b.to(device)) for p, (a, b) in self.tensors.items()})

    def trainable(self) -> LoraWeights:
        """A copy whose tensors are parameters: the trained weights are never those that serve."""
        copies = {
            p: (nn.Parameter(a.detach().clone()), nn.Parameter(b.detach().clone()))
            for p, (a, b) in self.tensors.items()
        }
        return LoraWeights(self.spec, copies)

    def frozen(self) -> LoraWeights:
        """A copy that no optimizer reaches."""
        copies = {p: (a.detach().clone(), b.detach().clone()) for p, (a, b) in self.tensors.items()}
        return LoraWeights(self.spec, copies)


class AdapterStack:
    """Several adapters side by side: ranks concatenated, so that one matmul serves all rows.

    A row's activations for ranks that are not its adapter's are multiplied by 0, those of its own by
    alpha / r. With a handful of live policies this is cheaper than gathering A and B per row.
    """

    def __init__(self, adapters: Sequence[LoraWeights], device: torch.device | str = "cpu") -> None:
        self.adapters = tuple(adapters)
        total = sum(a.spec.r for a in adapters)
        table = torch.zeros(len(adapters) + 1, total)
        segments: list[tuple[int, int]] = []
        start = 0
        for number, adapter in enumerate(adapters):
            segments.append((start, start + adapter.spec.r))
            table[number, start : start + adapter.spec.r] = adapter.spec.scale
            start += adapter.spec.r
        # The last row is zero, and index −1 (the bare base) selects it.
        self.table = table.to(device)
        self.tensors: dict[str, tuple[Tensor, Tensor]] = {}
        paths = sorted({path for adapter in adapters for path in adapter.tensors})
        for path in paths:
            present = [a.tensors[path] for a in adapters if path in a.tensors]
            inner, outer = present[0][0].shape[1], present[0][1].shape[0]
            stacked_a = torch.zeros(total, inner, device=device)
            stacked_b = torch.zeros(outer, total, device=device)
            for (low, high), adapter in zip(segments, adapters, strict=True):
                if path in adapter.tensors:
                    a, b = adapter.tensors[path]
                    stacked_a[low:high] = a
                    stacked_b[:, low:high] = b
            self.tensors[path] = (stacked_a, stacked_b)

    def gates(self, index: Tensor) -> Tensor:
        """[rows, 1, total rank]: what each row multiplies its rank activations with."""
        if index.numel() and int(index.max()) >= len(self.adapters):
            raise HoneWorkerError("A row names an adapter outside the stack.", code="bad_route", status=500)
        return self.table[index].unsqueeze(1)


class Joined(Protocol):
    def output(self, layer: LoraLinear, x: Tensor, weights: LoraWeights) -> Tensor: ...
    def forget(self) -> None: ...


class _Route(threading.local):
    """Of each thread its own: parts of a step go through the model at the same time."""

    single: LoraWeights | None = None
    stack: AdapterStack | None = None
    gates: Tensor | None = None


class LoraRouter:
    """Which adapter applies now, on the thread that asks."""

    def __init__(self) -> None:
        self.layers: dict[str, LoraLinear] = {}
        self._now = _Route()
        #: The other way to compute a layer under `single` (joined_lora.py), where the base's paths ask for it.
        self.joined: Joined | None = None

    @contextmanager
    def single(self, weights: LoraWeights | None) -> Iterator[None]:
        """Every row uses these weights; gradients flow to A and B. None is the bare base."""
        with self._route(weights, None, None):
            yield

    @contextmanager
    def rows(self, stack: AdapterStack | None, index: Tensor) -> Iterator[None]:
        """Row i uses `stack.adapters[index[i]]`, or the bare base where that is −1."""
        with self.gated(stack, None if stack is None else stack.gates(index)):
            yield

    @contextmanager
    def gated(self, stack: AdapterStack | None, gates: Tensor | None) -> Iterator[None]:
        """`rows` with gates that the caller kept: decoding reuses them while its rows stay the same."""
        with self._route(None, stack, gates):
            yield

    @contextmanager
    def _route(
        self, single: LoraWeights | None, stack: AdapterStack | None, gates: Tensor | None
    ) -> Iterator[None]:
        now = self._now
        before = (now.single, now.stack, now.gates)
        now.single, now.stack, now.gates = single, stack, gates
        try:
            yield
        finally:
            now.single, now.stack, now.gates = before
            if self.joined is not None:
                self.joined.forget()

    @property
    def trains(self) -> bool:
        """Whether all rows use the same weights, `trained`: those of one adapter or the bare base."""
        return self._now.stack is None

    @property
    def trained(self) -> LoraWeights | None:
        return self._now.single

    def joined_output(self, layer: LoraLinear, x: Tensor) -> Tensor | None:
        """Base and adapter together, where they are computed so."""
        if self.joined is None or self._now.single is None:
            return None
        return self.joined.output(layer, x, self._now.single)

    def delta(self, path: str, x: Tensor) -> Tensor | None:
        """What the route adds to the output of a module, in the adapter's precision; None for nothing."""
        single, stack, gates = self._now.single, self._now.stack, self._now.gates
        if single is not None:
            pair = single.tensors.get(path)
            if pair is None:
                return None
            a, b = pair
            return F.linear(F.linear(x.to(a.dtype), a) * single.spec.scale, b)
        if stack is not None:
            pair = stack.tensors.get(path)
            if pair is None:
                return None
            a, b = pair
            assert gates is not None
            if x.dim() != 3 or x.shape[0] != gates.shape[0]:
                message = f"{path} flattens its rows, so adapters cannot be chosen per row. Use another base."
                raise HoneWorkerError(message, code="unsupported_base", status=500)
            return F.linear(F.linear(x.to(a.dtype), a) * gates, b)
        return None


class LoraLinear(nn.Linear):
    """A linear layer that shares the base's weight and asks the router what to add.

    What is added is the matmul's summand: base and adapter are summed in float32 and rounded once. Added to an
    output that is rounded already, a young adapter is lost: in bfloat16 it is below half of the last place.
    """

    def __init__(self, base: nn.Linear, path: str, router: LoraRouter) -> None:
        nn.Module.__init__(self)
        self.in_features = base.in_features
        self.out_features = base.out_features
        self.weight = base.weight
        self.bias = base.bias
        self.path = path
        # In tuples, so that torch does not look into them for modules and parameters.
        self._router = (router,)
        self.four_bit = four_bit_of(base)
        self.widened = (None if self.four_bit else widened(base.weight, base.bias),)
        if self.widened[0] is not None:
            # The model's own parameter from now on: there is one copy of the weights.
            self.weight.data = self.widened[0][:, : self.in_features]

    def forward(self, input: Tensor) -> Tensor:
        router = self._router[0]
        together = router.joined_output(self, input)
        if together is not None:
            return together
        delta = router.delta(self.path, input)
        if delta is None and self.four_bit is None:
            return F.linear(input, self.weight, self.bias)
        x = input.reshape(-1, self.in_features)
        summand = None if delta is None else delta.reshape(-1, self.out_features).to(x.dtype)
        if self.four_bit is None or not torch.is_grad_enabled():
            out = self.product(x, summand)
        else:
            out = _Unkept.apply(x, summand, self)
        return out.view(*input.shape[:-1], self.out_features)

    def product(self, x: Tensor, summand: Tensor | None) -> Tensor:
        """x [rows, in] times the weight, plus bias and summand [rows, out]."""
        matrix = self.matrix()
        if summand is None:
            return F.linear(x, matrix, self.bias)
        wide = self.widened[0]
        if self.four_bit is not None:
            wide = widened(matrix, self.bias)
        if wide is not None:
            return torch.addmm(summand, beside_ones(x), wide.t())
        return torch.addmm(summand if self.bias is None else summand + self.bias, x, matrix.t())

    def matrix(self) -> Tensor:
        """[out, in] as matmuls take it. Of a layer in 4 bits it is made anew, to be let go of."""
        return self.weight if self.four_bit is None else self.four_bit.matrix()


class _Unkept(torch.autograd.Function):
    """`LoraLinear.product` of a layer in 4 bits. Autograd would keep each matrix until the backward: all of the base."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, summand: Tensor | None, layer: LoraLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x, summand)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        to_x, to_summand, _ = ctx.needs_input_grad
        return grad @ ctx.layer.matrix() if to_x else None, grad if to_summand else None, None


#: Columns that a bias takes beside its weight: rows stay aligned.
BIAS_COLUMNS = 8


def widened(weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """[out, in + 8]: the bias as a column of the weight, for inputs that hold a 1 there. None: not needed.

    The place of the summand is the adapter's. Together with a bias it would be rounded to the bias's last place,
    unless it is held in float32.
    """
    if bias is None or weight.dtype.itemsize >= 4:
        return None
    columns = weight.new_zeros(weight.shape[0], BIAS_COLUMNS)
    columns[:, 0] = bias.detach()
    return torch.cat([weight.detach(), columns], dim=1)


def beside_ones(x: Tensor) -> Tensor:
    """Rows of inputs for a widened weight."""
    ones = x.new_zeros(x.shape[0], BIAS_COLUMNS)
    ones[:, 0] = 1
    return torch.cat([x, ones], dim=1)


def inject(model: nn.Module) -> LoraRouter:
    """Replaces every linear layer but the output head. Names of parameters stay as they were."""
    router = LoraRouter()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for path, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or module is head or path.split(".")[-1] == "lm_head":
            continue
        parent, _, name = path.rpartition(".")
        layer = LoraLinear(module, path, router)
        layer.train(module.training)
        setattr(model.get_submodule(parent), name, layer)
        router.layers[path] = layer
    return router


def lora_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Path → layer of all layers that an adapter may reach, injected or not."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and path.split(".")[-1] != "lm_head"
    }


def default_targets(model: nn.Module) -> tuple[str, ...]:
    """All linear layers of this base, by the last part of their names."""
    names = {path.split(".")[-1] for path in lora_layers(model)}
    known = [name for name in DEFAULT_TARGETS if name in names]
    return tuple(known + sorted(names - set(known)))


def target_paths(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """The layers that these target names reach, as PEFT matches them. A name that reaches none is refused."""
    layers = lora_layers(model)
    chosen: dict[str, nn.Linear] = {}
    for target in targets:
        hits = {p: m for p, m in layers.items() if p == target or p.endswith("." + target)}
        if not hits:
            message = f"No linear layer of the base is called '{target}'. It has {default_targets(model)}."
            raise HoneWorkerError(message, code="bad_lora", param="lora.target_modules")
        chosen.update(hits)
    return chosen
