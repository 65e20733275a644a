"""Imitates the better half of each group: likelihood of answers whose reward is above the group's mean."""

from typing import Literal

import torch
from hone_worker.train.advantages import Advantages, group_advantages
from hone_worker.train.objectives.objective import LossInputs, LossOutputs, Objective
from hone_worker.train.options import Options, Positive


class BestOfGroup(Options):
    type: Literal["best_of_group"] = "best_of_group"
    margin: Positive = 0.1  # in the client: { margin: 0.2 }


def advantages(rewards: torch.Tensor, groups: torch.Tensor, options: BestOfGroup) -> Advantages:
    found = group_advantages(rewards, groups, "none")
    better = (found.values > options.margin).double()
    return Advantages(better, found.equal_groups, found.groups)


def loss(inputs: LossInputs, options: BestOfGroup) -> LossOutputs:
    total = -(inputs.advantages * inputs.logprobs).sum() / inputs.tokens
    return LossOutputs(total, {"better": inputs.advantages > 0})


OBJECTIVE = Objective(BestOfGroup, advantages, loss, lambda sums: {"better": sums["better"].mean})
