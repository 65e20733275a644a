"""One training operation: policy N and the step data in, the files of policy N+1 out.

A generator, so that the thread that owns the model can decode between two micro-batches. Nothing here
reads torch's global random numbers, and the order of every sum is fixed by the plan: the same step data and
checkpoint give the same bytes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.packing.attention import NAME
from hone_worker.packing.transfer import on_device
from hone_worker.packing.tree_attention import obstacle
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import fault
from hone_worker.train.completion_advantages import completion_advantages
from hone_worker.train.computed import Computed, HighEntropy
from hone_worker.train.fit import Fit
from hone_worker.train.forward import logprobs, read_out
from hone_worker.train.limits import check_limits
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.metrics import SamplerGap, StepMetrics
from hone_worker.train.micro_batch import MicroBatch, MiniBatch
from hone_worker.train.objectives import objective_of
from hone_worker.train.objectives.objective import LossInputs, LossOutputs
from hone_worker.train.parts import part_tokens
from hone_worker.train.policy_cache import own
from hone_worker.train.policy_state import Gradients, PolicyState, add_gradients, gradients_of, require_finite
from hone_worker.train.rows import mini_batches, sampled_micro_batch
from hone_worker.train.staging import staged
from hone_worker.train.step_data import StepData, TrainConfig
from hone_worker.train.sums import highest
from hone_worker.train.watch import Watch

Event = dict[str, Any]
Training = Generator[Event, None, None]

log = logging.getLogger("hone_worker")


def train_steps(
    base: Base,
    data: StepData,
    config: TrainConfig,
    aborted: Callable[[], bool],
    memory: TrainerMemory | None = None,
) -> Training:
    """Yields an event after every micro-batch and stage; the last one is the result.

    Raises HoneWorkerError where the operation fails, and then leaves the staging folder empty.
    """
    watch = Watch()
    memory = memory or TrainerMemory(base)
    operation = _Operation(base, data, config, aborted, watch, Fit(memory))
    try:
        with staged(Path(config.staging)):
            events = operation.run()
            while True:
                watch.resume()
                event = next(events)
                watch.pause()
                if event["event"] == "result":
                    break
                yield event
        # Once it is told, what lies in the folder is the server's, even if nobody asks for more.
        yield event
    finally:
        if operation.state is not None:
            operation.state.release()
        memory.step_is_over()


class _Operation:
    def __init__(
        self,
        base: Base,
        data: StepData,
        config: TrainConfig,
        aborted: Callable[[], bool],
        watch: Watch,
        fit: Fit,
    ) -> None:
        self.base = base
        self.data = data
        self.config = config
        self.aborted = aborted
        self.watch = watch
        self.fit = fit
        self.objective = objective_of(config.loss)
        self.needs = self.objective.needs(config.loss)
        self.metrics = StepMetrics(data, self.objective)
        self.metrics.max_grad_norm = None if config.evaluate else config.optimizer.max_grad_norm
        self.state: PolicyState | None = None
        self._loss_lock = threading.Lock()  # files of the operator's own need not expect several threads

    def run(self) -> Training:
        data, config = self.data, self.config
        advantages = self.objective.advantages(data.rollout_reward, data.rollout_group, config.loss)
        packable = self._packable()
        steps = mini_batches(
            data,
            config,
            completion_advantages(advantages, data),
            packable=packable,
            whole_rollouts=self.needs.whole_rollouts,
            whole_groups=self.needs.whole_groups,
            rewards=self.needs.rewards,
            at_token=self.needs.head,
            part=part_tokens(self.base.device, self.fit.memory.side_by_side.count),
        )
        check_limits(self.base, data, steps)
        state = self.state = PolicyState(self.base, config, self.fit.memory.policies, head=self.needs.head)
        state.num_tokens += self.metrics.episodes.tokens
        if not config.evaluate:
            for step in steps:
                self.fit.plan(state.weights, step.micro_batches)
            yield from self.fit.events()
        fault("worker.load")
        yield self._stage("load")

        self.old: torch.Tensor | None = None
        self.reference: torch.Tensor | None = None  # not a number where it is not known
        self.entropies: torch.Tensor | None = None  # at the start of the operation
        # Whether the weights are still those of the start, and nothing has compared them with the sampler.
        self.compares = True
        if len(steps) > 1 or self.needs.reward_penalty:
            yield from self._old_logprobs(state, steps)
            self.metrics.gap.check(config.max_mismatch, self.base.dtype)
            yield self._stage("old_logprobs")
        if self.needs.reference:
            yield from self._reference_logprobs(state, steps)
            yield self._stage("reference_logprobs")
        elif self.needs.drift_sample and not (self.objective.unsampled or config.evaluate):
            tokens = sum(m.tokens for step in steps for m in step.micro_batches)
            sample = sampled_micro_batch(data, config, tokens, packable=packable)
            yield from self._reference_logprobs(state, [replace(steps[0], micro_batches=[sample])])
            yield self._stage("reference_logprobs")
        if self.needs.reward_penalty:
            rewards = data.rollout_reward - self._penalties(steps)
            advantages = self.objective.advantages(rewards, data.rollout_group, config.loss)
            steps = [step.with_advantages(completion_advantages(advantages, data)) for step in steps]

        learning_rate: float | None = None if config.evaluate else 0.0
        done, forward_backward, update = 0, 0.0, 0.0
        for step in steps:
            high = None
            computed: list[Computed] = []
            if self.needs.top_entropy is not None:
                known = self.entropies if step is steps[0] else None
                high = yield from self._high_entropy(state, step, self.needs.top_entropy, known)
            # It grows where a micro-batch has to be parted.
            while len(computed) < len(step.micro_batches):
                self._stop_if_aborted()
                several = self._through(state, step, len(computed), high)
                computed += several
                yield from self.fit.events()
                total = sum(len(step.micro_batches) for step in steps)
                for each in several:
                    done, went = done + 1, each.micro_batch.tokens
                    yield {"event": "microbatch", "done": done, "total": total, "tokens": went}
            self.metrics.losses.append(self._measure(computed))
            forward_backward += self.watch.lap()
            if self.compares:
                self.metrics.gap.check(config.max_mismatch, self.base.dtype)
            self.compares = False
            self._stop_if_aborted()
            if config.evaluate:
                continue
            if step.signal or self.needs.every_token:
                learning_rate, norm = state.update()
                self.metrics.grad_norms.append(norm)
            update += self.watch.lap()
        yield {"event": "stage", "stage": "forward_backward", "seconds": forward_backward}
        yield {"event": "stage", "stage": "optimizer", "seconds": update}

        self._stop_if_aborted()
        files = [] if config.evaluate else state.write()
        yield self._stage("checkpoint")
        self._stop_if_aborted()
        self.watch.pause()
        self.watch.resume()
        self.metrics.split_micro_batches = self.fit.split
        self.metrics.recomputed_micro_batches = self.fit.recomputed
        metrics = self.metrics.report(advantages, learning_rate, state.num_tokens, self.watch.total)
        if self.needs.head:
            # A side is one conversation, of which nobody answered a part.
            metrics = {k: None if k.startswith("completions/") else v for k, v in metrics.items()}
        fault("worker.result")
        yield {"event": "result", "metrics": metrics, "files": files}

    def _packable(self) -> bool:
        if self.config.packing == "rows":
            return False
        reason = obstacle(self.base.model, NAME, self.base.max_model_len)
        if reason is not None:
            log.warning("sequences are trained one a row, shared prompts once for each: %s", reason)
        return reason is None

    def _old_logprobs(self, state: PolicyState, steps: list[MiniBatch]) -> Training:
        """pi_o of every trained token, before the first optimizer step moves anything.

        Where the plan leaves the choice and the first micro-batch shows no difference, they are the sampler's. The
        weight pi_o / pi_s is 1 then, and what sampler and trainer differ by is measured in the first optimizer step.
        """
        self.old = self._for_each_token(state)
        self.entropies = self._for_each_token(state)
        undecided = self.config.old_logprobs == "auto" and not self.needs.compares_sampler
        undecided = undecided and all(m.comparable.all() for step in steps for m in step.micro_batches)
        self.metrics.old_from_sampler = False
        found = []
        for micro_batch, logprob, entropy in self._looked_at(state.weights, steps):
            yield from self.fit.events()
            if undecided and SamplerGap.of(logprob, micro_batch).negligible:
                self.old = self.data.logprobs.to(self.base.device, state.exact)
                self.entropies = None
                self.metrics.old_from_sampler = True
                return
            undecided = False
            token = on_device(micro_batch.position, self.base.device)
            self.old[token] = logprob
            self.entropies[token] = entropy
            found.append((logprob, micro_batch))
            # No micro-batch is trained yet: this only offers the thread to others.
            yield {"event": "heartbeat"}
        for logprob, micro_batch in found:
            self.metrics.gap.add(logprob, micro_batch)
        self.compares = False

    def _reference_logprobs(self, state: PolicyState, steps: list[MiniBatch]) -> Training:
        """Those that the step data gives; or of the base, which is the same model with the adapter off, or of the
        policy that the step names."""
        if self.data.reference is not None:
            self.reference = self.data.reference.to(self.base.device, state.exact)
            return
        self.reference = self._for_each_token(state).fill_(torch.nan)
        weights = None
        if self.config.reference is not None:
            read = read_adapter(Path(self.config.reference), self.base.model)
            weights = LoraWeights(
                read.spec,
                {p: (own(self.base, a), own(self.base, b)) for p, (a, b) in read.tensors.items()},
            )
        for micro_batch, logprob, _ in self._looked_at(weights, steps):
            self.reference[on_device(micro_batch.position, self.base.device)] = logprob
            yield from self.fit.events()
            yield {"event": "heartbeat"}

    def _high_entropy(
        self, state: PolicyState, step: MiniBatch, share: float, known: torch.Tensor | None
    ) -> Generator[Event, None, HighEntropy]:
        """The tokens of the optimizer step whose entropy is highest now; `known` is what a pass has found before."""
        entropy = self._for_each_token(state) if known is None else known
        weight = self._for_each_token(state)
        for micro_batch in step.micro_batches:
            token = on_device(micro_batch.position, self.base.device)
            given = micro_batch.weight
            weight[token] = 1.0 if given is None else on_device(given, self.base.device, state.exact)
        if known is None:
            for micro_batch, _, found in self._looked_at(state.weights, [step]):
                entropy[on_device(micro_batch.position, self.base.device)] = found
                yield from self.fit.events()
                yield {"event": "heartbeat"}
        mask = highest(entropy, weight > 0, share)
        return HighEntropy(mask, float((weight * mask).sum()))

    def _for_each_token(self, state: PolicyState) -> torch.Tensor:
        return torch.zeros(len(self.data.tokens), dtype=state.exact, device=self.base.device)

    def _looked_at(
        self, weights: LoraWeights | None, steps: list[MiniBatch]
    ) -> Iterator[tuple[MicroBatch, torch.Tensor, torch.Tensor]]:
        """Every micro-batch with its logprobs and entropies, without a gradient."""

        def forward(micro_batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
            with torch.no_grad():
                return logprobs(self.base, weights, micro_batch)

        sums = []  # read together: a number that is not finite makes its sum so
        for step in steps:
            at = 0
            while at < len(step.micro_batches):
                self._stop_if_aborted()
                for logprob, entropy in self.fit.looked_at(step.micro_batches, at, forward):
                    sums.append(logprob.sum())
                    at += 1
                    yield step.micro_batches[at - 1], logprob, entropy
        require_finite(torch.stack(sums))

    def _penalties(self, steps: list[MiniBatch]) -> torch.Tensor:
        """What each rollout's tokens take off its reward. Those that are not trained take nothing."""
        assert self.needs.reward_penalty and self.old is not None and self.reference is not None
        total = torch.zeros(self.data.rollouts, dtype=torch.float64)
        for micro_batch in (m for step in steps for m in step.micro_batches):
            token = micro_batch.position.to(self.base.device)
            penalty = self.needs.reward_penalty(self.old[token], self.reference[token]).cpu().double()
            if micro_batch.weight is not None:
                penalty = penalty * micro_batch.weight
            total.index_add_(0, micro_batch.rollout, penalty)
        return total

    def _through(
        self, state: PolicyState, step: MiniBatch, at: int, high: HighEntropy | None
    ) -> list[Computed]:
        """Of the micro-batch at this place, and of those that go beside it."""

        def compute(micro_batch: MicroBatch, recompute: bool = False) -> tuple[Computed, Gradients]:
            return self._forward_backward(state, micro_batch, step, high, recompute)

        if self.config.evaluate:
            return [each for each, _ in self.fit.looked_at(step.micro_batches, at, compute)]
        found = self.fit.trained(state.weights, step.micro_batches, at, compute)
        for _, gradients in found:
            add_gradients(gradients, state.trained)
            fault("worker.backward")
        return [each for each, _ in found]

    def _forward_backward(
        self,
        state: PolicyState,
        micro_batch: MicroBatch,
        step: MiniBatch,
        high: HighEntropy | None,
        recompute: bool,
    ) -> tuple[Computed, Gradients]:
        device = self.base.device
        advantage = micro_batch.advantage.to(state.exact)
        moves = self.needs.every_token or bool(advantage.any())
        token = on_device(micro_batch.position, device)
        reference = None if self.reference is None else self.reference[token]
        with torch.set_grad_enabled(moves and not self.config.evaluate):
            logprob, entropy, scores = read_out(
                self.base,
                state.weights,
                state.head_weight,
                micro_batch,
                entropy_gradient=self.needs.entropy_gradient,
                recompute=recompute,
            )
            inputs = LossInputs(
                logprobs=logprob,
                old=logprob.detach() if self.old is None else self.old[token],
                sampler=on_device(micro_batch.sampler, device),
                advantages=on_device(advantage, device),
                rollout=on_device(micro_batch.rollout, device),
                group=on_device(self.data.rollout_group[micro_batch.rollout].long(), device),
                completion=on_device(micro_batch.completion, device),
                token=token,
                rollouts=step.rollouts,
                entropies=entropy,
                tokens=step.tokens,
                mean_tokens=step.mean_tokens,
                rollout_tokens=on_device(step.rollout_tokens, device, state.exact),
                entropy_tokens=step.tokens if high is None else high.tokens,
                high_entropy=None if high is None else high.mask[token],
                reference=reference if self.needs.reference else None,
                weights=on_device(micro_batch.weight, device, state.exact),
                scores=scores,
            )
            with self._loss_lock:
                outputs = self.objective.loss(inputs, self.config.loss)
            gradients = gradients_of(outputs.total, state.trained)
        computed = Computed(
            micro_batch,
            LossOutputs(outputs.total.detach(), outputs.metrics),
            logprob.detach(),
            entropy.detach(),
            reference,
        )
        return computed, gradients

    def _measure(self, computed: list[Computed]) -> float:
        """The loss of an optimizer step, and all that it tells, once everything is computed."""
        require_finite(torch.stack([each.outputs.total for each in computed]))
        loss = 0.0
        for each in computed:
            if self.compares:
                self.metrics.gap.add(each.logprob, each.micro_batch)
            if each.reference is not None:
                self.metrics.add_drift(each.logprob, each.reference)
            self.metrics.add(each.outputs, each.entropy, each.micro_batch)
            loss += float(each.outputs.total)
        return loss

    def _stop_if_aborted(self) -> None:
        if self.aborted():
            raise HoneWorkerError("The operation was aborted.", code="aborted")

    def _stage(self, name: str) -> Event:
        return {"event": "stage", "stage": name, "seconds": self.watch.lap()}
