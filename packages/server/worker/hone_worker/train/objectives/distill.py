"""On-policy distillation: the reverse KL to a teacher, on tokens that the student itself sampled.

The gradient of KL(pi || q) over the student's own samples is that of a policy gradient with the advantage
-(log pi - log q) of each token. So it stands in "On-Policy Distillation" (Thinking Machines, 2025) and in
tinker-cookbook, `distillation/train_on_policy.py`, `incorporate_kl_penalty`, which this follows. There log pi is the
sampler's; here it is the trainer's before the first optimizer step, and what lies between the two is corrected for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field

from hone_worker.train.advantages import Advantages, group_advantages
from hone_worker.train.objectives.clipped import clip_ratios, clipped, surrogate
from hone_worker.train.objectives.masks import masked, mismatch_mask
from hone_worker.train.objectives.objective import LossInputs, LossOutputs, Needs, Objective, importance
from hone_worker.train.objectives.policy_options import MismatchOptions
from hone_worker.train.objectives.ratios import log_ratio, weighed
from hone_worker.train.options import NotNegative, Positive
from hone_worker.train.sums import Metrics, PerRollout


class Distill(MismatchOptions):
    """Who the teacher is, the server knows: the step names its folder, or gives its logprobs."""

    type: Literal["distill"] = "distill"
    kl_coef: Positive = 1.0
    kl_discount: Annotated[float, Field(ge=0, le=1)] = 0.0
    reward_coef: NotNegative = 0.0
    epsilon_low: Annotated[float, Field(gt=0, le=1)] = 0.2
    epsilon_high: Positive = 0.2
    importance_cap: Positive = 2.0


def advantages(rewards: torch.Tensor, groups: torch.Tensor, options: Distill) -> Advantages:
    """Those of the rewards, against the mean of the rewarded members of the group; 0 without a reward (NaN)."""
    values = torch.zeros_like(rewards, dtype=torch.float64)
    rewarded = rewards.isfinite()
    found = group_advantages(rewards[rewarded], groups[rewarded], "none")
    values[rewarded] = options.reward_coef * found.values
    return Advantages(values, found.equal_groups, found.groups)


def loss(inputs: LossInputs, options: Distill) -> LossOutputs:
    """L = -sum w min(rho A, clip(rho) A) / tokens, the mean over the optimizer step's trained tokens.

    A_t = reward_coef A_reward - kl_coef sum_{j >= t} kl_discount^{j - t} (log pi_o(j) - log q(j)), j over the tokens of
    the same answer; rho = pi / pi_o, w = min(pi_o / pi_s, cap). A token without a teacher (NaN) adds nothing to A.
    """
    assert inputs.reference is not None
    teacher = inputs.reference.detach()
    taught = teacher.isfinite()
    old = inputs.old.detach()
    gap = torch.where(taught, old - teacher, 0.0)
    pull = -options.kl_coef * gap
    if options.kl_discount > 0:
        pull = _discounted(pull, inputs, options.kl_discount)
    advantage = inputs.advantages + pull
    low, high = options.epsilon_low, options.epsilon_high
    weight = weighed(importance(old, inputs.sampler).clamp(max=options.importance_cap), inputs)
    kept = mismatch_mask(inputs, options)
    if kept is not None:
        weight = weight * kept
    ratio = torch.exp(log_ratio(inputs, "token"))
    total = -(weight * surrogate(ratio, advantage, low, high)).sum() / max(inputs.tokens, 1.0)
    metrics = {
        **clipped(ratio, advantage, low, high, "token"),
        "taught": taught,
        "kl": gap,
        "teacher": torch.where(taught, teacher, 0.0),
    }
    return LossOutputs(total, metrics if kept is None else {**metrics, "masked/mismatch": ~kept})


def _discounted(values: torch.Tensor, inputs: LossInputs, discount: float) -> torch.Tensor:
    """At each token of an answer: the values from it on, each discounted by its distance."""
    order = inputs.token.argsort()
    _, answer, lengths = inputs.completion[order].unique_consecutive(return_inverse=True, return_counts=True)
    place = torch.arange(len(order), device=order.device) - (lengths.cumsum(0) - lengths)[answer]
    table = values.new_zeros(len(lengths), int(lengths.max()))
    table[answer, place] = values[order]
    for column in range(table.shape[1] - 2, -1, -1):
        table[:, column] += discount * table[:, column + 1]
    return torch.empty_like(values).index_copy_(0, order, table[answer, place])


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    taught = float(sums["taught"].total.sum())
    return {
        **clip_ratios(sums),
        **masked(sums),
        # log pi - log q on the student's own tokens: the estimate k1 of the reverse KL, in nats a token.
        "distill/kl": float(sums["kl"].total.sum()) / taught if taught else None,
        "distill/teacher_logprob": float(sums["teacher"].total.sum()) / taught if taught else None,
        "distill/teacher_share": sums["taught"].mean,
    }


def needs(options: Distill) -> Needs:
    return Needs(
        whole_rollouts=options.mismatch_mask == "sequence",
        reference=True,
        every_token=True,
        compares_sampler=options.mismatch_mask != "none",
        rewards=False,
    )


OBJECTIVE = Objective(Distill, advantages, loss, report, needs)
