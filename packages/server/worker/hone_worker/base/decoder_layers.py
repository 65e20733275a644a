"""The layers of a transformer, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Those that can be computed again; empty for a model that does not say which they are."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def telling(model: nn.Module, tick: Callable[[], None]) -> Iterator[None]:
    """Calls `tick` after each layer. A forward of many tokens takes minutes, and must not look like one that hangs."""
    hooks = [layer.register_forward_hook(lambda *_: tick()) for layer in decoder_layers(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
