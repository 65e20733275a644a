"""What an objective is: options, advantages and a loss. Each stands in a file of its own beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hone_worker.train.advantages import Advantages
from hone_worker.train.options import Options
from hone_worker.train.sums import Metrics, PerRollout


@dataclass(frozen=True)
class LossInputs:
    """The N trained tokens of a micro-batch. Tensors are [N], on one device; only `logprobs` has a gradient.

    All tokens of a completion that train are in one micro-batch; those of a rollout may be spread over several.
    """

    logprobs: torch.Tensor  # pi, of the weights that are trained
    old: torch.Tensor  # pi_o: the trainer's before the first optimizer step of the operation
    sampler: torch.Tensor  # pi_s: the engine's, when it sampled the token
    advantages: torch.Tensor
    rollout: torch.Tensor  # int64: index of its rollout in the step data
    completion: torch.Tensor  # int64: index of its completion
    token: torch.Tensor  # int64: its own place in the step data's `tokens`
    rollouts: float  # R: rewarded rollouts of this optimizer step, those that train nothing included
    reference: torch.Tensor | None = None  # of a fixed policy, for a KL
    weights: torch.Tensor | None = None  # None: every token weighs 1


@dataclass(frozen=True)
class LossOutputs:
    total: torch.Tensor  # scalar; the micro-batches of an optimizer step add up to its loss
    metrics: dict[str, torch.Tensor]  # [N] without gradient: the step sums them by rollout


@dataclass(frozen=True)
class Objective:
    """`options` has a field `type` whose only value, and default, is the name of the objective."""

    options: type[Options]
    advantages: Callable[[torch.Tensor, torch.Tensor, Any], Advantages]  # rewards, groups, options
    loss: Callable[[LossInputs, Any], LossOutputs]
    report: Callable[[Mapping[str, PerRollout]], Metrics]  # from the sums of LossOutputs.metrics

    @property
    def name(self) -> str:
        return self.options.model_fields["type"].default


def importance(old: torch.Tensor, sampler: torch.Tensor) -> torch.Tensor:
    """pi_o / pi_s, uncapped and without a gradient."""
    return torch.exp(old.detach() - sampler.detach())
