"""A reward model by Bradley and Terry's model of preferences (Ouyang et al., arXiv 2203.02155, eq. 1), with the
centring of Eisenstein et al. (arXiv 2312.09244) as in TRL's RewardTrainer: a scalar head beside the adapter, read at
the last token of a conversation, of pairs as in dpo.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from hone_worker.train.objectives.dpo import advantages
from hone_worker.train.objectives.objective import NO_REWARDS, LossInputs, LossOutputs, Needs, Objective
from hone_worker.train.options import NotNegative, Options
from hone_worker.train.sums import Metrics, PerRollout


class BradleyTerry(Options):
    type: Literal["bradley_terry"] = "bradley_terry"
    centering: NotNegative = 0.01


def loss(inputs: LossInputs, options: BradleyTerry) -> LossOutputs:
    """The mean over pairs of -log sigmoid(r_chosen - r_rejected) + centering (r_chosen + r_rejected)^2."""
    scores = inputs.scores
    assert scores is not None  # asked for in `needs`
    pairs, pair = inputs.group.unique(return_inverse=True)
    chosen = inputs.advantages > 0

    def side(where: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(len(pairs), dtype=scores.dtype, device=scores.device)
        return zeros.index_add(0, pair[where], scores[where])

    better, worse = side(chosen), side(~chosen)
    each = -logsigmoid(better - worse) + options.centering * (better + worse).square()
    # Two rollouts a pair.
    total = each.sum() / (inputs.rollouts / 2)
    with torch.no_grad():
        of_pair = {
            "pairs": torch.ones_like(each),
            "accuracy": (better > worse).to(each.dtype),
            "margin": better - worse,
        }
        # One token a side, and that of the chosen one carries what its pair is worth.
        metrics = {name: torch.where(chosen, value[pair], 0.0) for name, value in of_pair.items()}
    return LossOutputs(total, {**metrics, "scores": scores.detach()})


def report(sums: Mapping[str, PerRollout]) -> Metrics:
    """TRL's names, and the spread of the rewards of all sides."""
    pairs = float(sums["pairs"].total.sum())
    scores = sums["scores"]
    rewards = scores.total[scores.tokens > 0]
    return {
        **NO_REWARDS,
        "accuracy": float(sums["accuracy"].total.sum()) / pairs,
        "margin": float(sums["margin"].total.sum()) / pairs,
        "min_reward": float(rewards.min()),
        "mean_reward": float(rewards.mean()),
        "max_reward": float(rewards.max()),
        "std_reward": float(rewards.std(correction=1)),
    }


def needs(_options: BradleyTerry) -> Needs:
    return Needs(whole_groups=True, head=True, drift_sample=False)


OBJECTIVE = Objective(BradleyTerry, advantages, loss, report, needs, unsampled=True)
