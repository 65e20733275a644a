"""Direct preference optimisation (arXiv 2305.18290, eq. 7) over pairs: the two rollouts of a group, the chosen one
with the higher reward. Conservative labels as in its cDPO note, IPO (arXiv 2310.12036, eq. 17), RPO's cross-entropy
on the chosen side (arXiv 2404.19733, eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch.nn.functional import logsigmoid

from hone_worker.train.advantages import Advantages
from hone_worker.train.objectives.objective import NO_REWARDS, LossInputs, LossOutputs, Needs, Objective
from hone_worker.train.options import NotNegative, Options, Positive
from hone_worker.train.sums import Metrics, PerRollout


class Dpo(Options):
    type: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    loss: Literal["sigmoid", "sigmoid_norm", "ipo"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    sft_weight: NotNegative = 0.0
    reference: Literal["base", "start"] | Annotated[int, Field(ge=0, le=1_000_000_000)] = "base"

    @model_validator(mode="after")
    def _no_labels_in_ipo(self) -> Dpo:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError("labelSmoothing has no meaning with the loss ipo")
        return self


def advantages(rewards: torch.Tensor, groups: torch.Tensor, _options: Dpo) -> Advantages:
    """1 for the chosen side, -1 for the rejected one."""
    values = torch.zeros_like(rewards)
    for group in groups.unique():
        members = groups == group
        values[members] = torch.sign(rewards[members] - rewards[members].mean())
    return Advantages(values, 0, len(groups.unique()))


def loss(inputs: LossInputs, options: Dpo) -> LossOutputs:
    """The mean over pairs of -log sigmoid(beta (h_chosen - h_rejected)), h = sum log pi - log pi_ref.

    With `sigmoid_norm` and `ipo` h is the mean of a side's tokens instead of their sum (as in TRL). `ipo` is
    (h_chosen - h_rejected - 1 / (2 beta))^2; smoothing s gives the flipped pair the weight s; `sft_weight` adds
    -mean log pi of the chosen side.
    """
    reference = inputs.old if options.reference == "start" else inputs.reference
    assert reference is not None  # asked for in `needs`
    pairs, pair = inputs.group.unique(return_inverse=True)
    chosen = inputs.advantages > 0

    def side(where: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pairs), dtype=values.dtype, device=values.device).index_add(
            0, pair[where], values[where]
        )

    ones = torch.ones_like(inputs.logprobs)
    lengths = [side(where, ones) for where in (chosen, ~chosen)]
    gain = inputs.logprobs - reference.detach()
    gains = [side(where, gain) for where in (chosen, ~chosen)]
    better, worse = (
        gains if options.loss == "sigmoid" else [g / n for g, n in zip(gains, lengths, strict=True)]
    )
    margin = better - worse
    if options.loss == "ipo":
        each = (margin - 1 / (2 * options.beta)).square()
    else:
        smooth = options.label_smoothing
        scaled = options.beta * margin
        each = -(1 - smooth) * logsigmoid(scaled) - smooth * logsigmoid(-scaled)
    if options.sft_weight:
        each = each - options.sft_weight * side(chosen, inputs.logprobs) / lengths[0]
    # Two rollouts a pair.
    total = each.sum() / (inputs.rollouts / 2)

    with torch.no_grad():
        rewards = [options.beta * g for g in gains]
        of_pair = {
            "pairs": torch.ones_like(each),
            "rewards/chosen": rewards[0],
            "rewards/rejected": rewards[1],
            "rewards/margins": rewards[0] - rewards[1],
            "rewards/accuracies": (rewards[0] > rewards[1]).to(each.dtype),
            "logps/chosen": side(chosen, inputs.logprobs),
            "logps/rejected": side(~chosen, inputs.logprobs),
        }
        # Sums go by token: each token of a chosen side carries its share of what its pair is worth.
        metrics = {
            name: torch.where(chosen, (value.double() / lengths[0])[pair], 0.0)
            for name, value in of_pair.items()
        }
    return LossOutputs(total, metrics)


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    """TRL's names: `rewards/*` are beta (log pi - log pi_ref), summed over a side."""
    pairs = float(sums["pairs"].total.sum())
    means = {name: float(s.total.sum()) / pairs for name, s in sums.items() if name != "pairs"}
    return {**NO_REWARDS, **means}


def needs(options: Dpo) -> Needs:
    return Needs(whole_groups=True, reference=options.reference != "start")


OBJECTIVE = Objective(Dpo, advantages, loss, report, needs, unsampled=True)
