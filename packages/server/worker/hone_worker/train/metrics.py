"""What a training step tells about itself, under TRL's names."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from dataclasses import dataclass, field

import torch

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.advantages import Advantages
from hone_worker.train.micro_batch import MicroBatch
from hone_worker.train.objectives.kl import ESTIMATORS
from hone_worker.train.objectives.objective import LossOutputs, Objective, importance
from hone_worker.train.rows import sampled_tokens, trained_completions
from hone_worker.train.step_data import StepData
from hone_worker.train.sums import Metrics, PerRollout, Running

log = logging.getLogger("hone_worker")

#: |sampler - trainer| of a logprob, mean and worst over a micro-batch, up to which the one is as good as the other.
#: Far above what rounding does in float32, and a third of the narrowest clip (gspo's 3e-4).
NEGLIGIBLE_MEAN, NEGLIGIBLE_MOST = 1e-4, 1e-2


@dataclass
class SamplerGap:
    """Sampler against trainer, on tokens sampled from the very policy that this step starts from.

    Those of a truncated distribution (top_p < 1) are left out: there the two differ by right.

    The ratio is shown before its cap: what this watches for is an engine that computes something else.
    """

    difference: Running = field(default_factory=Running)
    ratio: Running = field(default_factory=Running)

    def add(self, start: torch.Tensor, micro_batch: MicroBatch) -> None:
        where = micro_batch.comparable
        start, sampler = start.cpu()[where], micro_batch.sampler[where]
        self.difference.add((start.double() - sampler.double()).abs())
        self.ratio.add(importance(start.double(), sampler.double()))

    def merge(self, other: SamplerGap) -> None:
        self.difference.merge(other.difference)
        self.ratio.merge(other.ratio)

    @classmethod
    def of(cls, start: torch.Tensor, micro_batch: MicroBatch) -> SamplerGap:
        gap = cls()
        gap.add(start, micro_batch)
        return gap

    @property
    def negligible(self) -> bool:
        """Whether the sampler's logprobs are as good as the trainer's."""
        mean = self.difference.mean
        return mean is not None and mean <= NEGLIGIBLE_MEAN and self.difference.high <= NEGLIGIBLE_MOST

    def check(self, most: float, dtype: torch.dtype) -> None:
        """Refuses a mean difference above `most`, and warns of one above what is usual in this precision."""
        mean = self.difference.mean
        if mean is None:
            return
        if mean > most:
            raise HoneWorkerError(
                f"The engine's logprobs differ from the trainer's by {mean:.3g} on average, more than "
                f"{most:g}: the engine does not serve the policy that is trained. "
                "Publish again, or check the engine's precision and sampling parameters.",
                code="sampler_mismatch",
            )
        if mean > (1e-3 if dtype == torch.float32 else 0.1):
            log.warning("sampler and trainer logprobs differ by %.3g on average", mean)


class Episodes:
    """How long the trained rollouts are, in the tokens that the policy sampled and that train.

    A rollout that is only compared with the others counts nowhere here: none of its tokens is sent.
    """

    def __init__(self, data: StepData) -> None:
        sampled = sampled_tokens(data)
        lengths: dict[int, int] = {}
        cut: dict[int, bool] = {}
        rollout = data.completion_rollout.tolist()
        for completion, trains in enumerate(trained_completions(data)):
            if not trains:
                continue
            owner = rollout[completion]
            lengths[owner] = lengths.get(owner, 0) + int(sampled[completion])
            # A rollout ended as its last answer did.
            cut[owner] = bool(data.completion_cut[completion])
        self.length = Running()
        self.length.add(torch.tensor(list(lengths.values())))
        self.terminated = Running()
        self.terminated.add(torch.tensor([n for owner, n in lengths.items() if not cut[owner]]))
        self.clipped_ratio = sum(cut.values()) / len(cut) if cut else None
        self.tokens = sum(lengths.values()) + _prompt_tokens(data, sampled, set(lengths))


def _prompt_tokens(data: StepData, sampled: torch.Tensor, rollouts: set[int]) -> int:
    """Of the prompts that the conversations of these rollouts begin with; later turns of others not counted."""
    given = data.completion_offsets.diff() - sampled
    return sum(
        int(given[completion])
        for completion, parent in enumerate(data.completion_parent.tolist())
        if parent < 0 and int(data.completion_rollout[completion]) in rollouts
    )


class StepMetrics:
    """Sums over the micro-batches of an operation. Several that share them out `merge` into the same metrics."""

    def __init__(self, data: StepData, objective: Objective) -> None:
        self.data = data
        self.objective = objective
        self.losses: list[float] = []  # one an optimizer step
        self.grad_norms: list[float] = []
        self.max_grad_norm: float | None = None  # what they are cut to
        self.old_from_sampler: bool | None = None  # None: nobody asked for old logprobs
        self.entropy = Running()
        self.drift = Running()
        self.of_loss: dict[str, PerRollout] = defaultdict(lambda: PerRollout(data.rollouts))
        self.gap = SamplerGap()
        self.episodes = Episodes(data)
        self.trained_tokens = 0
        self.model_tokens = 0
        self.sequence_tokens = 0
        self.unpacked_micro_batches = 0
        self.split_micro_batches = 0
        self.recomputed_micro_batches = 0

    def add(self, outputs: LossOutputs, entropy: torch.Tensor, micro_batch: MicroBatch) -> None:
        self.entropy.add(entropy)
        for name, values in outputs.metrics.items():
            self.of_loss[name].add(values, micro_batch.rollout)
        self.trained_tokens += len(micro_batch.target)
        self.model_tokens += micro_batch.tokens
        self.sequence_tokens += micro_batch.sequence_tokens
        self.unpacked_micro_batches += micro_batch.layout is None

    def add_drift(self, now: torch.Tensor, reference: torch.Tensor) -> None:
        """From the base or the policy that the step names, by the k3 estimator, in nats."""
        known = reference.isfinite()
        self.drift.add(ESTIMATORS["k3"](reference[known].double() - now[known].double()))

    def merge(self, other: StepMetrics) -> None:
        """Takes in what another measured on other micro-batches of the same steps. Norms are of whole steps."""
        self.losses = [mine + theirs for mine, theirs in zip(self.losses, other.losses, strict=True)]
        self.entropy.merge(other.entropy)
        self.drift.merge(other.drift)
        for name, sums in other.of_loss.items():
            self.of_loss[name].merge(sums)
        self.gap.merge(other.gap)
        self.trained_tokens += other.trained_tokens
        self.model_tokens += other.model_tokens
        self.sequence_tokens += other.sequence_tokens
        self.unpacked_micro_batches += other.unpacked_micro_batches
        self.split_micro_batches += other.split_micro_batches
        self.recomputed_micro_batches += other.recomputed_micro_batches

    def _share_cut(self) -> float | None:
        if not self.grad_norms or self.max_grad_norm is None:
            return None
        return sum(norm > self.max_grad_norm for norm in self.grad_norms) / len(self.grad_norms)

    def report(
        self, advantages: Advantages, learning_rate: float | None, num_tokens: int, seconds: float
    ) -> Metrics:
        """`num_tokens` is the model's count with this step's, `seconds` what this operation computed for."""
        rewards = self.data.rollout_reward
        rewards = rewards[rewards.isfinite()]
        loss = sum(self.losses) / len(self.losses)
        episodes = self.episodes
        return {
            "loss": loss,
            "policy_loss": loss,
            "grad_norm": sum(self.grad_norms) / len(self.grad_norms) if self.grad_norms else None,
            "grad_clip_ratio": self._share_cut(),
            "max_grad_norm": self.max_grad_norm,
            "learning_rate": learning_rate,
            "reward": float(rewards.mean()) if len(rewards) else None,
            "reward_std": float(rewards.std(correction=1)) if len(rewards) > 1 else None,
            "frac_reward_zero_std": advantages.equal_groups / advantages.groups
            if advantages.groups
            else None,
            "kl": self.drift.mean,
            "kl_tokens": self.drift.count,
            "entropy": self.entropy.mean,
            **_checked(self.objective.report(self.of_loss)),
            "completions/mean_length": episodes.length.mean,
            "completions/min_length": episodes.length.min,
            "completions/max_length": episodes.length.max,
            "completions/clipped_ratio": episodes.clipped_ratio,
            "completions/mean_terminated_length": episodes.terminated.mean,
            "completions/min_terminated_length": episodes.terminated.min,
            "completions/max_terminated_length": episodes.terminated.max,
            "num_tokens": num_tokens,
            "sampling/sampling_logp_difference/mean": self.gap.difference.mean,
            "sampling/sampling_logp_difference/max": self.gap.difference.max,
            "sampling/importance_sampling_ratio/min": self.gap.ratio.min,
            "sampling/importance_sampling_ratio/mean": self.gap.ratio.mean,
            "sampling/importance_sampling_ratio/max": self.gap.ratio.max,
            "old_logprobs_from_sampler": None
            if self.old_from_sampler is None
            else int(self.old_from_sampler),
            "train_tokens": self.trained_tokens,
            "model_tokens": self.model_tokens,
            "sequence_tokens": self.sequence_tokens,
            "unpacked_micro_batches": self.unpacked_micro_batches,
            "split_micro_batches": self.split_micro_batches,
            "recomputed_micro_batches": self.recomputed_micro_batches,
            "step_time": seconds,
        }


def _checked(reported: Metrics) -> Metrics:
    """Of an objective of one's own, too: what is no number would end the answer in the middle of its line."""
    for name, value in reported.items():
        if value is None or (isinstance(value, int | float) and math.isfinite(value)):
            continue
        raise HoneWorkerError(
            f"The objective reports {value!r} as {name!r}. `report` gives finite numbers, or None where there is no "
            "value.",
            code="bad_objective",
            status=500,
        )
    return reported
