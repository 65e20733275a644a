"""Activations of a decoder layer computed again in the backward instead of kept: a third more time, and of each
layer only its input stays in memory.

The second computation of a layer has to see what the first one saw. The adapter's route is set anew for it, and
the layout of a packed row, which is a context variable, comes with a copy of the first one's context. So both
compute the same numbers, and the gradients have the same bits as without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hone_worker.base.decoder_layers import decoder_layers
from hone_worker.base.lora import LoraRouter, LoraWeights


@contextmanager
def recomputed(model: nn.Module, router: LoraRouter, weights: LoraWeights | None) -> Iterator[None]:
    """For the length of the `with`, which is a forward's. Its backward comes later and recomputes."""
    layers = decoder_layers(model)
    before = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_forward, layer.forward, router, weights)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            if own is None:
                del layer.forward
            else:
                layer.forward = own


def _forward(
    inner: Callable[..., Any], router: LoraRouter, weights: LoraWeights | None, *args: Any, **options: Any
) -> Any:
    if not torch.is_grad_enabled():
        return inner(*args, **options)
    seen = copy_context()

    def compute(*args: Any) -> Any:
        with router.single(weights):
            # A context is entered once at a time, and two threads may recompute.
            return seen.copy().run(partial(inner, **options), *args)

    return checkpoint(compute, *args, use_reentrant=False, preserve_rng_state=False)
