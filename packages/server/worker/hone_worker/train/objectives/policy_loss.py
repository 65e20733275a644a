"""From a loss of each token to the loss of a step, in TRL's order, and the objective that it makes.

GRPOTrainer._compute_loss (TRL 1.16): token loss, times the masks, times the sampler's correction, plus beta times
the KL, which therefore escapes all of them; then the mean; then the entropy bonus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hone_worker.train.advantages import Advantages, group_advantages
from hone_worker.train.objectives.kl import ESTIMATORS
from hone_worker.train.objectives.masks import masked, masks
from hone_worker.train.objectives.objective import LossInputs, LossOutputs, Needs, Objective
from hone_worker.train.objectives.policy_options import PenaltyOptions, PolicyOptions
from hone_worker.train.objectives.ratios import rollout_length, weighed
from hone_worker.train.options import Options
from hone_worker.train.sums import Metrics, PerRollout


@dataclass(frozen=True)
class TokenLoss:
    """What a file of this folder computes: [N] each."""

    values: torch.Tensor
    ratio: torch.Tensor  # pi / pi_o at the loss's own level, for `klBiasCorrection`
    correction: torch.Tensor | None  # a constant factor of the values
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)


# Means over the optimizer step, whatever its micro-batches are.


def mean_of_rollouts(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """Each rollout by its own tokens, then all rollouts: GRPO."""
    return (weighed(values, inputs) / rollout_length(inputs)).sum() / inputs.rollouts


def mean_of_tokens(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    return weighed(values, inputs).sum() / max(inputs.tokens, 1.0)


def mean_of_operation(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """Over an optimizer step's share of the operation's tokens: DAPO, whose denominator is the generation batch."""
    return weighed(values, inputs).sum() / max(inputs.mean_tokens, 1.0)


def sum_of_rollouts(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """Rollouts count by their length: LUSPO."""
    return weighed(values, inputs).sum() / inputs.rollouts


Mean = Callable[[torch.Tensor, LossInputs], torch.Tensor]


def combined(inputs: LossInputs, options: PenaltyOptions, token: TokenLoss, mean: Mean) -> LossOutputs:
    values, metrics = token.values, dict(token.metrics)
    for name, kept in masks(inputs, options).items():
        values = values * kept
        metrics[f"masked/{name}"] = ~kept
    if token.correction is not None:
        values = values * token.correction
    if options.beta > 0 and options.kl_place == "loss":
        assert inputs.reference is not None
        kl = ESTIMATORS[options.kl_estimator or "k3"](inputs.reference.detach() - inputs.logprobs)
        values = values + options.beta * (kl * token.ratio if options.corrects_kl else kl)
    total = mean(values, inputs)
    if options.entropy_coef > 0:
        counted = inputs.entropies
        counted = counted if inputs.high_entropy is None else counted * inputs.high_entropy
        bonus = weighed(counted, inputs).sum() / max(inputs.entropy_tokens, 1.0)
        total = total - options.entropy_coef * bonus
    return LossOutputs(total, metrics)


def needs(options: PenaltyOptions) -> Needs:
    in_reward = options.beta > 0 and options.kl_place == "reward"
    estimate = ESTIMATORS[options.kl_estimator or "k1"]
    beta = options.beta
    correction = getattr(options, "sampler_correction", "none")
    return Needs(
        whole_rollouts=getattr(options, "importance_level", "token") == "sequence"
        or correction.startswith("sequence")
        or options.mismatch_mask == "sequence"
        or options.off_policy_mask_threshold is not None,
        reference=beta > 0 or options.measure_kl is True,
        drift_sample=options.measure_kl is not False,
        compares_sampler=options.mismatch_mask != "none",
        every_token=(beta > 0 and not in_reward) or options.entropy_coef > 0,
        entropy_gradient=options.entropy_coef > 0,
        top_entropy=options.top_entropy_quantile if options.top_entropy_quantile < 1 else None,
        reward_penalty=(lambda old, reference: beta * estimate(reference - old)) if in_reward else None,
    )


def needs_whole(options: PenaltyOptions) -> Needs:
    """Those of a loss whose own ratio is a rollout's."""
    return replace(needs(options), whole_rollouts=True)


def advantages(rewards: torch.Tensor, groups: torch.Tensor, options: PolicyOptions) -> Advantages:
    return group_advantages(rewards, groups, options.scale_rewards, options.std or "sample", options.baseline)


def policy_objective(
    options: type[Options],
    token_loss: Callable[[LossInputs, Any], TokenLoss],
    mean: Callable[[Any], Mean],
    *,
    report_of: Callable[[Mapping[str, PerRollout]], Metrics] = lambda _sums: {},
    advantages_of: Callable[[torch.Tensor, torch.Tensor, Any], Advantages] = advantages,
    needs_of: Callable[[Any], Needs] = needs,
) -> Objective:
    def loss(inputs: LossInputs, given: Any) -> LossOutputs:
        return combined(inputs, given, token_loss(inputs, given), mean(given))

    return Objective(options, advantages_of, loss, lambda sums: {**report_of(sums), **masked(sums)}, needs_of)
