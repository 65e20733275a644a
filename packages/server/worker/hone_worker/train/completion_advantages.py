"""Each completion's advantage: its rollout's, unless the step data gives it a reward or an advantage of its own."""

from __future__ import annotations

import torch

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.advantages import Advantages
from hone_worker.train.step_data import StepData


def completion_advantages(advantages: Advantages, data: StepData) -> torch.Tensor:
    """float64, one a completion.

    A reward of its own is compared as the rollout's is: baseline and scale are the same. In a group whose
    rollouts have equal rewards the baseline is that reward, and the scale is 1.
    """
    rollout = data.completion_rollout.long()
    values = advantages.values[rollout]
    if (reward := data.completion_reward) is not None:
        if advantages.scale is None:
            raise HoneWorkerError(
                "This objective makes no advantages of rewards of single completions. Give advantages.",
                code="bad_batch",
                param="completion_reward",
            )
        moved = values + (reward - data.rollout_reward[rollout]) / advantages.scale[rollout]
        values = torch.where(reward.isnan(), values, moved)
    if (advantage := data.completion_advantage) is not None:
        values = torch.where(advantage.isnan(), values, advantage)
    return values
