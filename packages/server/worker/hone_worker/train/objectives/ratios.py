"""Ratios of probabilities, of a token or of a whole rollout, and sums over the tokens of a rollout."""

from __future__ import annotations

from typing import Protocol

import torch

from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_options import DEFAULT_CORRECTION_MAX


class Corrects(Protocol):
    """Options by which a loss weighs what the sampler did otherwise."""

    @property
    def sampler_correction(self) -> str: ...

    @property
    def sampler_correction_min(self) -> float | None: ...

    @property
    def sampler_correction_max(self) -> float | None: ...


def weighed(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    return values if inputs.weights is None else values * inputs.weights


def rollout_sum(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """At each token: the sum over the trained tokens of its rollout, which are all in this micro-batch."""
    zero = values.new_zeros(len(inputs.rollout_tokens))
    return zero.index_add(0, inputs.rollout, weighed(values, inputs)).index_select(0, inputs.rollout)


def rollout_length(inputs: LossInputs) -> torch.Tensor:
    """At each token: the trained tokens of its rollout in the whole operation; 1 where they weigh nothing."""
    length = inputs.rollout_tokens.index_select(0, inputs.rollout)
    return torch.where(length > 0, length, torch.ones_like(length))


def rollout_mean(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    return rollout_sum(values, inputs) / rollout_length(inputs)


def log_ratio(inputs: LossInputs, level: str) -> torch.Tensor:
    """log pi - log pi_o; at level "sequence" its mean over the rollout (GSPO, arXiv 2507.18071, eq. 7)."""
    gap = inputs.logprobs - inputs.old.detach()
    return rollout_mean(gap, inputs) if level == "sequence" else gap


def sampler_correction(inputs: LossInputs, options: Corrects) -> torch.Tensor | None:
    """pi_o / pi_s, a constant: TRL's `vllm_importance_sampling_mode`, which it is named by; None for none.

    "sequence" is the product over the rollout. "truncate" holds it within [min, max], "mask" makes it 0 outside.
    """
    if options.sampler_correction == "none":
        return None
    level, mode = options.sampler_correction.split("_")
    gap = (inputs.old - inputs.sampler).detach()
    ratio = torch.exp(rollout_sum(gap, inputs) if level == "sequence" else gap)
    low = options.sampler_correction_min
    high = options.sampler_correction_max or DEFAULT_CORRECTION_MAX
    if mode == "truncate":
        return ratio.clamp(low, high)
    return torch.where((ratio < (low or 0.0)) | (ratio > high), torch.zeros_like(ratio), ratio)
