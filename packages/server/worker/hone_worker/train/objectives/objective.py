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
    """The N trained tokens of a micro-batch. Tensors are [N], on one device; only `logprobs` has a gradient,
    and `entropies` where `Needs.entropy_gradient` asks for one.

    All tokens of a completion that train are in one micro-batch; those of a rollout may be spread over several
    unless `Needs.whole_rollouts` asks for them together. Everything that is summed over more than one token is
    given as a count of the whole optimizer step: how a step is cut into micro-batches never changes its gradient.
    """

    logprobs: torch.Tensor  # pi, of the weights that are trained
    old: torch.Tensor  # pi_o: the trainer's before the first optimizer step of the operation
    sampler: torch.Tensor  # pi_s: the engine's, when it sampled the token
    advantages: torch.Tensor
    rollout: torch.Tensor  # int64: index of its rollout in the step data
    group: torch.Tensor  # int64: its rollout's
    completion: torch.Tensor  # int64: index of its completion
    token: torch.Tensor  # int64: its own place in the step data's `tokens`
    rollouts: float  # R: rewarded rollouts of this optimizer step, those that train nothing included
    entropies: torch.Tensor  # of the distribution that each token was sampled from, in nats
    tokens: float  # trained tokens of this optimizer step; one of weight w counts as w
    mean_tokens: float  # the same of the operation, by its rollouts' share in this optimizer step
    rollout_tokens: (
        torch.Tensor
    )  # [all rollouts of the step data], not [N]: trained tokens of each, by weight
    entropy_tokens: float  # of `tokens`, those that `high_entropy` holds; all of them without it
    high_entropy: torch.Tensor | None = None  # bool: among the optimizer step's `Needs.top_entropy`
    #: Of the base, or of a fixed policy, if `Needs.reference`; NaN where the step data gives it and has none.
    reference: torch.Tensor | None = None
    weights: torch.Tensor | None = None  # None: every token weighs 1
    #: With a gradient, if `Needs.head`: what the scalar head says at the token. Then there are no logprobs.
    scores: torch.Tensor | None = None


@dataclass(frozen=True)
class LossOutputs:
    total: torch.Tensor  # scalar; the micro-batches of an optimizer step add up to its loss
    metrics: dict[str, torch.Tensor]  # [N] without gradient: the step sums them by rollout


@dataclass(frozen=True)
class Needs:
    """What an objective asks of the operation, as its options say. Nothing that is not asked for is computed."""

    #: All trained tokens of a rollout are in one micro-batch, however long it is.
    whole_rollouts: bool = False
    #: The same of all rollouts of a group.
    whole_groups: bool = False
    #: Logprobs of the base with the adapter off, or of the policy that the step names: one more forward of every trained token, once an operation.
    reference: bool = False
    #: Without `reference`: measures `kl` on a sample of the trained tokens, which changes nothing about the loss.
    drift_sample: bool = True
    #: Looks at how far pi_o is from the sampler: pi_o is then never taken from the sampler.
    compares_sampler: bool = False
    #: Tokens whose advantage is 0 have a gradient all the same, as from a KL or an entropy bonus.
    every_token: bool = False
    #: A scalar head beside the adapter is trained, and the loss reads its scores at the trained tokens. Logprobs are 0
    #: and entropies are not computed.
    head: bool = False
    #: False: what it trains for needs no rewards. A rollout may have none, which is NaN, and step data without any
    #: advantage is trained.
    rewards: bool = True
    entropy_gradient: bool = False
    #: Marks this share of the optimizer step's tokens, those of the highest entropy: one more forward of every
    #: trained token for each optimizer step.
    top_entropy: float | None = None
    #: What a token takes off its rollout's reward, from its old and its reference logprob.
    reward_penalty: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None


def no_needs(_options: Options) -> Needs:
    return Needs()


@dataclass(frozen=True)
class Objective:
    """`options` has a field `type` whose only value, and default, is the name of the objective."""

    options: type[Options]
    advantages: Callable[[torch.Tensor, torch.Tensor, Any], Advantages]  # rewards, groups, options
    loss: Callable[[LossInputs, Any], LossOutputs]
    report: Callable[[Mapping[str, PerRollout]], Metrics]  # from the sums of LossOutputs.metrics
    needs: Callable[[Any], Needs] = no_needs
    #: Whether it trains tokens that no policy of ours sampled, and so asks nothing of the sampler.
    unsampled: bool = False

    @property
    def name(self) -> str:
        return self.options.model_fields["type"].default


#: What a report says in place of rewards, where there are none.
NO_REWARDS: Metrics = {
    "policy_loss": None,
    "reward": None,
    "reward_std": None,
    "frac_reward_zero_std": None,
}


def importance(old: torch.Tensor, sampler: torch.Tensor) -> torch.Tensor:
    """pi_o / pi_s, uncapped and without a gradient."""
    return torch.exp(old.detach() - sampler.detach())
