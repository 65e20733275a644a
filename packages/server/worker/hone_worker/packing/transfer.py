"""From the processor to the device without waiting for it."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor


@overload
def on_device(x: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor: ...
@overload
def on_device(x: None, device: torch.device, dtype: torch.dtype | None = None) -> None: ...
def on_device(x: Tensor | None, device: torch.device, dtype: torch.dtype | None = None) -> Tensor | None:
    """A copy from memory that the system may move would hold the processor until the device has done all before."""
    if x is None:
        return None
    if dtype is not None:
        x = x.to(dtype)
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
