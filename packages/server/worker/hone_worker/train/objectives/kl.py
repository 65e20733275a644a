"""Estimates of the KL to a reference from single tokens (Schulman, http://joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

from collections.abc import Callable

import torch

#: From r = log pi_ref - log pi. k1 may be negative; k3 is neither biased nor negative.
ESTIMATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "k1": lambda r: -r,
    "k2": lambda r: r * r / 2,
    "k3": lambda r: torch.exp(r) - r - 1,
}
