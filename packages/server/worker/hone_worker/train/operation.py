"""One training operation: policy N and a batch in, the files of policy N+1 out.

A generator, so that the thread that owns the model can decode between two micro-batches. Nothing here
reads torch's global random numbers, and the order of every sum is fixed by the plan: the same batch and
checkpoint give the same bytes.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.packing.attention import NAME
from hone_worker.packing.tree_attention import obstacle
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import fault
from hone_worker.train.advantages import group_advantages
from hone_worker.train.batch import Batch, TrainConfig
from hone_worker.train.checkpoint import (
    Moments,
    clear_staging,
    open_staging,
    parameter_names,
    read_counters,
    read_moments,
    write_checkpoint,
)
from hone_worker.train.forward import logprobs
from hone_worker.train.loss import policy_loss
from hone_worker.train.metrics import StepMetrics
from hone_worker.train.rows import MicroBatch, MiniBatch, mini_batches

Event = dict[str, Any]
Training = Generator[Event, None, None]

log = logging.getLogger("hone_worker")


class _Watch:
    """Seconds of this operation's own work: what other work runs while the generator waits is not its."""

    def __init__(self) -> None:
        self.total = 0.0
        self._lap = 0.0
        self._since = 0.0

    def resume(self) -> None:
        self._since = time.perf_counter()

    def pause(self) -> None:
        spent = time.perf_counter() - self._since
        self.total += spent
        self._lap += spent

    def lap(self) -> float:
        self.pause()
        lap, self._lap = self._lap, 0.0
        self.resume()
        return lap


def train_steps(base: Base, batch: Batch, config: TrainConfig, aborted: Callable[[], bool]) -> Training:
    """Yields an event after every micro-batch and stage; the last one is the result.

    Raises HoneWorkerError where the operation fails, and then leaves the staging folder empty.
    """
    watch = _Watch()
    staging = Path(config.staging)
    open_staging(staging)
    operation = _Operation(base, batch, config, aborted, watch, staging)
    finished = False
    try:
        events = operation.run()
        while True:
            watch.resume()
            event = next(events, None)
            watch.pause()
            if event is None:
                return
            finished = event["event"] == "result"
            yield event
    except torch.OutOfMemoryError as cause:
        clear_staging(staging)
        raise HoneWorkerError(
            "The device has too little memory for a micro-batch. Plan smaller ones, or limit the sequences.",
            code="out_of_memory",
            status=500,
        ) from cause
    except BaseException:
        # Also when the generator is closed early, but not once the result is told: then it is the server's.
        if not finished:
            clear_staging(staging)
        raise
    finally:
        operation.release()


class _Operation:
    def __init__(
        self,
        base: Base,
        batch: Batch,
        config: TrainConfig,
        aborted: Callable[[], bool],
        watch: _Watch,
        staging: Path,
    ) -> None:
        self.base = base
        self.batch = batch
        self.config = config
        self.aborted = aborted
        self.watch = watch
        self.staging = staging
        self.metrics = StepMetrics(batch)
        self.parameters: dict[str, torch.Tensor] = {}
        # Adapters, logprobs and the loss are float32 over any base that is not finer itself.
        self.exact = torch.promote_types(torch.float32, base.dtype)

    def release(self) -> None:
        """Gradients and moments are the size of the adapter several times over: let go of them at once."""
        for parameter in self.parameters.values():
            parameter.grad = None
        self.parameters = {}

    def run(self) -> Training:
        config = self.config
        advantages = group_advantages(
            self.batch.rollout_reward, self.batch.rollout_group, config.loss.scale_rewards
        )
        steps = mini_batches(self.batch, config, advantages.values, packable=self._packable())
        self._check_limits(steps)
        self._load()
        fault("worker.load")
        yield self._stage("load")

        self.start: torch.Tensor | None = None
        if len(steps) > 1:
            yield from self._old_logprobs(steps)
            self._check_gap()
            yield self._stage("old_logprobs")

        learning_rate = 0.0
        total = sum(len(step.micro_batches) for step in steps)
        done = 0
        forward_backward = update = 0.0
        for step in steps:
            loss = 0.0
            for micro_batch in step.micro_batches:
                self._stop_if_aborted()
                loss += self._forward_backward(micro_batch, step.rollouts)
                done += 1
                yield {"event": "microbatch", "done": done, "total": total, "tokens": micro_batch.tokens}
            self.metrics.losses.append(loss)
            forward_backward += self.watch.lap()
            if self.start is None:
                self._check_gap()
            self._stop_if_aborted()
            if step.signal:
                learning_rate = self._update()
            update += self.watch.lap()
        yield {"event": "stage", "stage": "forward_backward", "seconds": forward_backward}
        yield {"event": "stage", "stage": "optimizer", "seconds": update}

        self._stop_if_aborted()
        files = self._write()
        yield self._stage("checkpoint")
        self._stop_if_aborted()
        self.watch.pause()
        self.watch.resume()
        metrics = self.metrics.report(
            self.batch, advantages, learning_rate, self.num_tokens, self.watch.total
        )
        fault("worker.result")
        yield {"event": "result", "metrics": metrics, "files": files}

    def _write(self) -> list[str]:
        counters = {
            "step": self.config.step,
            "optimizer_steps": self.optimizer_steps,
            "num_tokens": self.num_tokens,
            "seed": self.config.seed,
        }
        weights = LoraWeights(self.weights.spec, self._detached())
        try:
            return write_checkpoint(self.staging, weights, self.base.name, self._moments(), counters)
        except OSError as cause:
            full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
            raise HoneWorkerError(
                f"The checkpoint cannot be written: {cause.strerror}. Nothing was kept; free some space or "
                "check the data directory, then train again.",
                code="disk_full" if full else "checkpoint_failed",
                status=500,
            ) from cause

    def _packable(self) -> bool:
        if self.config.packing == "rows":
            return False
        reason = obstacle(self.base.model, NAME, self.base.max_model_len)
        if reason is not None:
            log.warning("sequences are trained one a row, shared prompts once for each: %s", reason)
        return reason is None

    def _check_limits(self, steps: list[MiniBatch]) -> None:
        vocabulary = self.base.vocab_size
        if int(self.batch.tokens.max()) >= vocabulary:
            raise HoneWorkerError(
                f"The batch holds token {int(self.batch.tokens.max())}; the base has {vocabulary} tokens.",
                code="bad_batch",
                param="tokens",
            )
        for step in steps:
            for micro_batch in step.micro_batches:
                if micro_batch.longest > self.base.max_model_len:
                    raise HoneWorkerError(
                        f"A sequence has {micro_batch.longest} tokens, the base takes "
                        f"{self.base.max_model_len}. Leave such rollouts out (`too_long`).",
                        code="too_long",
                    )

    def _load(self) -> None:
        """Policy N's weights, moments and counters. Its folder is only read."""
        config, folder = self.config, Path(self.config.checkpoint)
        read = read_adapter(folder, self.base.model)
        spec = read.spec
        wanted = config.lora.target_modules
        if (
            spec.r != config.lora.r
            or float(spec.alpha) != config.lora.alpha
            or (wanted is not None and sorted(wanted) != sorted(spec.target_modules))
        ):
            raise HoneWorkerError(
                f"The checkpoint has r {spec.r}, alpha {spec.alpha}, modules {sorted(spec.target_modules)}; "
                f"`lora` asks for r {config.lora.r}, alpha {config.lora.alpha}, modules {wanted}. "
                "A model keeps the shape that it was made with.",
                code="lora_mismatch",
                param="lora",
            )
        tensors = {
            path: tuple(
                side.detach().to(self.base.device, self.exact, copy=True).requires_grad_() for side in pair
            )
            for path, pair in sorted(read.tensors.items())
        }
        self.weights = LoraWeights(spec, tensors)
        ordered = [side for path in sorted(tensors) for side in tensors[path]]
        self.parameters = dict(zip(parameter_names(self.weights), ordered, strict=True))
        counters = read_counters(folder)
        self.optimizer_steps = counters.optimizer_steps
        self.num_tokens = counters.num_tokens + self.metrics.episodes.tokens
        self._load_optimizer(read_moments(folder, self.parameters))

    def _load_optimizer(self, moments: Moments | None) -> None:
        options = self.config.optimizer
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=options.learning_rate,
            betas=(options.betas[0], options.betas[1]),
            eps=options.eps,
            weight_decay=options.weight_decay,
            foreach=False,
        )
        if moments is None:
            return
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(moments.updates)),
                "exp_avg": moments.exp_avg[name].to(parameter.device, copy=True),
                "exp_avg_sq": moments.exp_avg_sq[name].to(parameter.device, copy=True),
            }

    def _moments(self) -> Moments:
        state = {name: self.optimizer.state[parameter] for name, parameter in self.parameters.items()}
        return Moments(
            int(next(iter(state.values()))["step"]),
            {name: values["exp_avg"] for name, values in state.items()},
            {name: values["exp_avg_sq"] for name, values in state.items()},
        )

    def _detached(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {path: (a.detach(), b.detach()) for path, (a, b) in self.weights.tensors.items()}

    def _old_logprobs(self, steps: list[MiniBatch]) -> Training:
        """pi_o of every trained token, before the first optimizer step moves anything."""
        self.start = torch.zeros(len(self.batch.tokens), dtype=self.exact, device=self.base.device)
        for step in steps:
            for micro_batch in step.micro_batches:
                self._stop_if_aborted()
                with torch.no_grad():
                    logprob, _ = logprobs(self.base, self.weights, micro_batch)
                self._require_finite(logprob)
                self.start[micro_batch.position.to(self.base.device)] = logprob
                self.metrics.gap.add(logprob, micro_batch)
                # No micro-batch is trained yet: this only offers the thread to others.
                yield {"event": "heartbeat"}

    def _forward_backward(self, micro_batch: MicroBatch, rollouts: float) -> float:
        device = self.base.device
        advantage = micro_batch.advantage.to(device, self.exact)
        with torch.set_grad_enabled(bool(advantage.any())):
            logprob, entropy = logprobs(self.base, self.weights, micro_batch)
            start = logprob.detach() if self.start is None else self.start[micro_batch.position.to(device)]
            result = policy_loss(
                logprob, start, micro_batch.sampler.to(device), advantage, rollouts, self.config.loss
            )
            self._require_finite(result.total)
            if result.total.requires_grad:
                result.total.backward()
                fault("worker.backward")
        if self.start is None:
            self.metrics.gap.add(start, micro_batch)
        self.metrics.add(result, entropy, micro_batch)
        return float(result.total.detach())

    def _update(self) -> float:
        options = self.config.optimizer
        parameters = list(self.parameters.values())
        for parameter in parameters:
            if parameter.grad is None:  # a module that no token went through, such as an unused expert
                parameter.grad = torch.zeros_like(parameter)
        norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm, foreach=False)
        self._require_finite(norm)
        self.optimizer_steps += 1
        warm = min(1.0, self.optimizer_steps / options.warmup_steps) if options.warmup_steps else 1.0
        learning_rate = options.learning_rate * warm
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        fault("worker.optimizer")
        self.optimizer.zero_grad(set_to_none=True)
        self.metrics.grad_norms.append(float(norm))
        return learning_rate

    def _check_gap(self) -> None:
        mean = self.metrics.gap.difference.mean
        if mean is None:
            return
        if mean > self.config.max_mismatch:
            raise HoneWorkerError(
                f"The engine's logprobs differ from the trainer's by {mean:.3g} on average, more than "
                f"{self.config.max_mismatch:g}: the engine does not serve the policy that is trained. "
                "Publish again, or check the engine's precision and sampling parameters.",
                code="sampler_mismatch",
            )
        if mean > (1e-3 if self.base.dtype == torch.float32 else 0.1):
            log.warning("sampler and trainer logprobs differ by %.3g on average", mean)

    def _require_finite(self, values: torch.Tensor) -> None:
        if not bool(values.detach().isfinite().all()):
            raise HoneWorkerError(
                "The loss or its gradient is not finite. Nothing was written; train from the same policy "
                "with a lower learning rate, or leave this batch out.",
                code="non_finite",
            )

    def _stop_if_aborted(self) -> None:
        if self.aborted():
            raise HoneWorkerError("The operation was aborted.", code="aborted")

    def _stage(self, name: str) -> Event:
        return {"event": "stage", "stage": name, "seconds": self.watch.lap()}
