"""What lies between a layer's matmuls, through torch.compile: norms, the gate of an MLP, rotary positions.

Written as transformers has them they are a dozen kernels a layer, each of which reads and writes all tokens. The
matmuls and the attention stay outside: torch's compiler has nothing to add there, and what it would have to follow
(the router, the layout of a packed row) breaks its graphs. A function is compiled once for all layers and lengths.

Only packed rows go through, which is where training computes. The engine decodes as before.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from hone_worker.packing.tree_attention import in_trees
from hone_worker.process.errors import HoneWorkerError

_ROTARY = "apply_rotary_pos_emb"


def compile_parts(model: nn.Module) -> int:
    """Gives how many modules compute some of their work so from now on."""
    compiled: dict[Any, Callable[..., Any]] = {}

    def once(key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        return compiled.setdefault(key, torch.compile(function))

    count = 0
    for module in model.modules():
        kind = type(module)
        forward = getattr(kind.forward, "__wrapped__", kind.forward)
        if kind.__name__.endswith("RMSNorm"):
            module.forward = _norm(module, once(kind, kind.forward))
        elif all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")) and set(
            forward.__code__.co_names
        ) <= {"gate_proj", "up_proj", "down_proj", "act_fn"}:
            module.forward = _gated(module, once(_gate, _gate))
        elif _ROTARY in forward.__code__.co_names:
            rotary = forward.__globals__[_ROTARY]
            module.forward = _rotating(module, forward, rotary, once(rotary, rotary))
        else:
            continue
        count += 1
    if count == 0:
        raise HoneWorkerError(
            "The compute paths are wrong: layer=compiled finds no norm, gate or rotary positions in this base that "
            "it knows. Take layer=eager.",
            code="bad_option",
            param="paths",
        )
    return count


def _long(x: Tensor, place: int) -> Tensor:
    """Every micro-batch has another length: compiled once for all of them."""
    torch._dynamo.maybe_mark_dynamic(x, place)
    return x


def _norm(module: nn.Module, fast: Callable[..., Tensor]) -> Callable[..., Tensor]:
    plain = module.forward

    def forward(x: Tensor, *others: Any) -> Tensor:
        return fast(module, _long(x, 1), *others) if in_trees() and x.dim() > 2 else plain(x, *others)

    return forward


def _gate(act: Callable[[Tensor], Tensor], gate: Tensor, up: Tensor) -> Tensor:
    return act(gate) * up


def _gated(module: Any, fast: Callable[..., Tensor]) -> Callable[..., Tensor]:
    plain = module.forward

    def forward(x: Tensor) -> Tensor:
        if not in_trees() or x.dim() < 3:
            return plain(x)
        inner = fast(module.act_fn, _long(module.gate_proj(x), 1), _long(module.up_proj(x), 1))
        return module.down_proj(inner)

    return forward


def _rotating(
    module: nn.Module, forward: Any, plain: Callable[..., Any], fast: Callable[..., Any]
) -> Callable[..., Any]:
    """The module's own forward, in which one name means another function: nothing changes for other models."""

    def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *others: Any, **named: Any) -> Any:
        if not in_trees():
            return plain(query, key, cos, sin, *others, **named)
        return fast(_long(query, 2), _long(key, 2), _long(cos, 1), _long(sin, 1), *others, **named)

    copy = FunctionType(
        forward.__code__,
        {**forward.__globals__, _ROTARY: rotary},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    copy.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(copy, module)
