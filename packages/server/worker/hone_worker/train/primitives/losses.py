"""Losses of `forward_backward`, each a sum over tokens: Tinker's, by Tinker's names.

https://tinker-docs.thinkingmachines.ai/losses has the formulas. pi_s is the logprob that came with the data, the
one that the sampler gave; A the advantage of the token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from hone_worker.train.objectives.clipped import clipped, surrogate
from hone_worker.train.options import Options, Positive


@dataclass(frozen=True)
class TokenInputs:
    """Of the N targets of a micro-batch: [N] each, on one device. Only `logprobs` has a gradient."""

    logprobs: torch.Tensor
    weights: torch.Tensor
    sampler: torch.Tensor
    advantages: torch.Tensor

    def compared(self) -> TokenInputs:
        """Without what the data says of tokens whose advantage is 0, which may be any number: they have no ratio."""
        known = torch.where(self.advantages != 0, self.sampler, self.logprobs.detach())
        return replace(self, sampler=known)


class CrossEntropy(Options):
    type: Literal["cross_entropy"] = "cross_entropy"


class ImportanceSampling(Options):
    type: Literal["importance_sampling"] = "importance_sampling"


class Clipped(Options):
    #: Bounds of the ratio itself.
    clip_low: Annotated[float, Field(ge=0, le=1)] = 0.8
    clip_high: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.2


class Ppo(Clipped):
    type: Literal["ppo"] = "ppo"


class Cispo(Clipped):
    type: Literal["cispo"] = "cispo"


class Dro(Options):
    type: Literal["dro"] = "dro"
    beta: Positive = 0.05


TokenLossOptions = Annotated[
    CrossEntropy | ImportanceSampling | Ppo | Cispo | Dro, Field(discriminator="type")
]


def cross_entropy(given: TokenInputs, _options: CrossEntropy) -> torch.Tensor:
    """-w log pi. Weights may be negative: with w = -dL/d(log pi) it has the gradient of any loss L."""
    return -given.weights * given.logprobs


def importance_sampling(given: TokenInputs, _options: ImportanceSampling) -> torch.Tensor:
    """-(pi / pi_s) A."""
    return -_ratio(given) * given.advantages


def ppo(given: TokenInputs, options: Ppo) -> torch.Tensor:
    """-min(rho A, clip(rho, low, high) A) with rho = pi / pi_s."""
    return -surrogate(_ratio(given), given.advantages, 1 - options.clip_low, options.clip_high - 1)


def cispo(given: TokenInputs, options: Cispo) -> torch.Tensor:
    """-clip(rho, low, high) A log pi, the first factor without a gradient."""
    weight = _ratio(given).detach().clamp(options.clip_low, options.clip_high)
    return -weight * given.advantages * given.logprobs


def dro(given: TokenInputs, options: Dro) -> torch.Tensor:
    """-(A log pi - beta/2 (log pi - log pi_s)^2), arXiv 2405.19107."""
    gap = given.logprobs - given.sampler
    return -(given.advantages * given.logprobs - 0.5 * options.beta * gap * gap)


def _ratio(given: TokenInputs) -> torch.Tensor:
    return torch.exp(given.logprobs - given.sampler)


_LOSSES: dict[str, Callable[[TokenInputs, Any], torch.Tensor]] = {
    "importance_sampling": importance_sampling,
    "ppo": ppo,
    "cispo": cispo,
    "dro": dro,
}


def token_losses(given: TokenInputs, options: TokenLossOptions) -> torch.Tensor:
    """[N]; 0 where an advantage that the loss reads is 0."""
    if options.type == "cross_entropy":
        return cross_entropy(given, options)
    losses = _LOSSES[options.type](given.compared(), options)
    return torch.where(given.advantages != 0, losses, torch.zeros_like(losses))


def clipped_tokens(given: TokenInputs, options: TokenLossOptions) -> int | None:
    """How many are at a bound that their advantage runs against; None for a loss without bounds."""
    if not isinstance(options, Clipped):
        return None
    found = clipped(
        _ratio(given.compared()), given.advantages, 1 - options.clip_low, options.clip_high - 1, "token"
    )
    return sum(int(mask.sum()) for mask in found.values())
