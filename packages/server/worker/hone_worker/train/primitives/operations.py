"""`forward_backward` and `optim_step`, as generators like `train_steps`: the engine decodes between their events."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.packing.attention import NAME
from hone_worker.packing.pack import pack
from hone_worker.packing.tree_attention import obstacle
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import fault
from hone_worker.train.fit import Fit
from hone_worker.train.forward import logprobs
from hone_worker.train.halves import first_half
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.micro_batch import MicroBatch
from hone_worker.train.parts import cuts, part_tokens
from hone_worker.train.policy_state import Gradients, PolicyState, add_gradients, gradients_of, require_finite
from hone_worker.train.primitives.data import ForwardConfig, OptimConfig, TokenData
from hone_worker.train.primitives.gradient import Gradient, read_gradient, write_gradient
from hone_worker.train.primitives.losses import TokenInputs, clipped_tokens, token_losses
from hone_worker.train.staging import staged
from hone_worker.train.sums import Metrics, Running

Event = dict[str, Any]
Events = Generator[Event, None, None]


def forward_backward(
    base: Base,
    data: TokenData,
    config: ForwardConfig,
    aborted: Callable[[], bool],
    memory: TrainerMemory | None = None,
) -> Events:
    """The result has the logprob of every target, and leaves the gradient in the staging folder."""
    began = time.perf_counter()
    _check_limits(base, data)
    memory = memory or TrainerMemory(base)
    with staged(Path(config.staging)):
        policy = memory.policies.take(Path(config.checkpoint))
        try:
            parameters = policy.parameters
            tokens = 0
            if config.gradient is not None:
                earlier = read_gradient(Path(config.gradient), parameters)
                tokens = earlier.tokens
                # The sums go on as if these micro-batches had followed the others in one operation.
                for name, parameter in parameters.items():
                    parameter.grad = earlier.of[name]
            fault("worker.load")
            yield {"event": "stage", "stage": "load", "seconds": time.perf_counter() - began}
            pass_ = _Pass(base, data, config, policy.weights, Fit(memory))
            if config.backward:
                pass_.fit.plan(policy.weights, pass_.micro_batches)
                yield from pass_.fit.events()
            done = 0
            # It grows where a micro-batch has to be parted.
            while done < len(pass_.micro_batches):
                _stop_if(aborted)
                several = pass_.add(done)
                yield from pass_.fit.events()
                total = len(pass_.micro_batches)
                for _ in range(several):
                    done += 1
                    went = pass_.micro_batches[done - 1].tokens
                    yield {"event": "microbatch", "done": done, "total": total, "tokens": went}
            files: list[str] = []
            if config.backward:
                gradient = {
                    n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()
                }
                for values in gradient.values():
                    require_finite(values)
                files = write_gradient(Path(config.staging), Gradient(gradient, tokens + pass_.model_tokens))
        finally:
            memory.policies.give_back(policy)
        _stop_if(aborted)
        metrics = {**pass_.metrics(), "step_time": time.perf_counter() - began}
        fault("worker.result")
    yield {"event": "result", "metrics": metrics, "files": files, "logprobs": pass_.logprobs}


def optim_step(
    base: Base, config: OptimConfig, aborted: Callable[[], bool], memory: TrainerMemory | None = None
) -> Events:
    """One update of policy N along a gradient: the files of policy N+1."""
    began = time.perf_counter()
    memory = memory or TrainerMemory(base)
    with staged(Path(config.staging)):
        state = PolicyState(base, config, memory.policies)
        try:
            gradient = read_gradient(Path(config.gradient), state.parameters)
            for name, parameter in state.parameters.items():
                parameter.grad = gradient.of[name]
            state.num_tokens += gradient.tokens
            fault("worker.load")
            yield {"event": "stage", "stage": "load", "seconds": time.perf_counter() - began}
            _stop_if(aborted)
            learning_rate, norm = state.update()
            files = state.write()
        finally:
            state.release()
        metrics: Metrics = {
            "learning_rate": learning_rate,
            "grad_norm": norm,
            "num_tokens": state.num_tokens,
            "step_time": time.perf_counter() - began,
        }
        fault("worker.result")
    yield {"event": "result", "metrics": metrics, "files": files}


def _stop_if(aborted: Callable[[], bool]) -> None:
    if aborted():
        raise HoneWorkerError("The operation was aborted.", code="aborted")


def _check_limits(base: Base, data: TokenData) -> None:
    for name in ("tokens", "targets"):
        ids = getattr(data, name)
        foreign = ((ids < 0) | (ids >= base.vocab_size)).nonzero()
        if len(foreign):
            at = int(foreign[0])
            sequence = int(torch.searchsorted(data.offsets, at, right=True)) - 1
            place = f"{name}[{at - int(data.offsets[sequence])}] of sequence {sequence}"
            raise HoneWorkerError(
                f"{place} is {int(ids[at])}; token ids of this base are 0 to {base.vocab_size - 1}.",
                code="bad_batch",
                param=name,
            )
    if (longest := int(data.offsets.diff().max())) > base.max_model_len:
        raise HoneWorkerError(
            f"A sequence has {longest} tokens, the base takes {base.max_model_len}. Send shorter ones.",
            code="too_long",
        )


class _Rows:
    """Makes micro-batches of sequences."""

    def __init__(self, base: Base, data: TokenData, temperature: float, side_by_side: int) -> None:
        self.data = data
        self.temperature = temperature
        self.most = part_tokens(base.device, side_by_side)
        self.packable = obstacle(base.model, NAME, base.max_model_len) is None
        self.offsets = data.offsets.tolist()

    def parts(self, sequences: list[int]) -> list[list[int]]:
        """What goes through together of a planned micro-batch (parts.py)."""
        if self.most is None or not self.packable:
            return [sequences]
        bounds = cuts([[ids] for ids in self.ids(sequences)], self.most)
        return [sequences[low:high] for low, high in pairwise([0, *bounds, len(sequences)])]

    def ids(self, sequences: list[int]) -> list[torch.Tensor]:
        return [self.data.tokens[self._span(i)] for i in sequences]

    def _span(self, sequence: int) -> slice:
        return slice(self.offsets[sequence], self.offsets[sequence + 1])

    def micro_batch(self, sequences: list[int]) -> MicroBatch:
        spans = [self._span(i) for i in sequences]
        ids = [self.data.tokens[span].long() for span in spans]
        position = torch.cat([torch.arange(span.start, span.stop) for span in spans])
        owner = torch.cat([torch.full((len(one),), i) for i, one in zip(sequences, ids, strict=True)])
        count = len(position)
        packed = pack([np.asarray(one) for one in ids]) if self.packable else None
        if packed is not None:
            input_ids, column = packed.input_ids[None], torch.cat(packed.places)
            row = torch.zeros_like(column)
        else:
            input_ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
            column = torch.cat([torch.arange(len(one)) for one in ids])
            row = torch.cat([torch.full((len(one),), number) for number, one in enumerate(ids)])
        return MicroBatch(
            input_ids=input_ids,
            position_ids=None if packed is None else packed.position_ids[None],
            layout=None if packed is None else packed.layout,
            row=row,
            column=column,
            target=self.data.targets[position].long(),
            rollout=owner,
            completion=owner,
            position=position,
            temperature=torch.full((count,), self.temperature),
            sampler=self.data.logprobs[position],
            advantage=self.data.advantages[position].double(),
            weight=self.data.weights[position],
            comparable=torch.zeros(count, dtype=torch.bool),
            tokens=count if packed is None else input_ids.shape[1],
            sequence_tokens=count,
            longest=max(len(one) for one in ids),
            made=_Made(sequences, self),
        )


@dataclass(frozen=True, eq=False)
class _Made:
    """Sequences of the plan, which can be parted anywhere."""

    leaves: list[int]
    rows: _Rows

    def halves(self, micro_batch: MicroBatch) -> list[MicroBatch]:
        if len(self.leaves) < 2:
            return [micro_batch]
        cut = first_half([[ids] for ids in self.rows.ids(self.leaves)], packed=self.rows.packable)
        return [self.rows.micro_batch(part) for part in (self.leaves[:cut], self.leaves[cut:])]


class _Pass:
    """The micro-batches of one operation, and what is told of them."""

    def __init__(
        self, base: Base, data: TokenData, config: ForwardConfig, weights: LoraWeights, fit: Fit
    ) -> None:
        self.base = base
        self.data = data
        self.config = config
        self.weights = weights
        self.fit = fit
        rows = _Rows(base, data, config.temperature, fit.memory.side_by_side.count)
        self.offsets = rows.offsets
        self.micro_batches = [rows.micro_batch(part) for plan in config.plan for part in rows.parts(plan)]
        self.logprobs: list[list[float]] = [[] for _ in range(data.sequences)]
        self.loss = 0.0
        self.entropy = Running()
        self.gap = Running()
        self.clipped: int | None = None
        self.model_tokens = 0

    def add(self, at: int) -> int:
        """The micro-batch at this place, or its first half, and those that go beside it. Gives how many they are."""
        if self.config.backward:
            found = self.fit.trained(self.weights, self.micro_batches, at, self._compute)
        else:
            found = self.fit.looked_at(self.micro_batches, at, self._compute)
        for number, (given, entropy, loss, gradients) in enumerate(found):
            add_gradients(gradients, self.weights.parameters())
            if self.config.backward:
                fault("worker.backward")
            micro_batch = self.micro_batches[at + number]
            self._note(micro_batch, given, entropy, loss)
            self.model_tokens += micro_batch.tokens
        return len(found)

    def _compute(
        self, micro_batch: MicroBatch, recompute: bool = False
    ) -> tuple[TokenInputs, torch.Tensor, float, Gradients]:
        place = micro_batch.position
        device = self.base.device
        with torch.set_grad_enabled(self.config.backward):
            logprob, entropy = logprobs(self.base, self.weights, micro_batch, recompute=recompute)
            require_finite(logprob)
            given = TokenInputs(
                logprobs=logprob,
                weights=self.data.weights[place].to(device, logprob.dtype),
                sampler=self.data.logprobs[place].to(device, logprob.dtype),
                advantages=self.data.advantages[place].to(device, logprob.dtype),
            )
            values = token_losses(given, self.config.loss)
            total = values.sum()
            require_finite(total)
            gradients = gradients_of(total, self.weights.parameters())
        given = replace(given, logprobs=logprob.detach())
        return given, entropy.detach(), float(total.detach()), gradients

    def _note(self, micro_batch: MicroBatch, given: TokenInputs, entropy: torch.Tensor, loss: float) -> None:
        self.loss += loss
        found = given.logprobs.float().cpu()
        at = 0
        for index in dict.fromkeys(micro_batch.completion.tolist()):
            length = self.offsets[index + 1] - self.offsets[index]
            self.logprobs[index] = found[at : at + length].tolist()
            at += length
        if self.config.loss.type == "cross_entropy":
            trained = given.weights != 0
        else:
            trained = given.advantages != 0
            self.gap.add((given.logprobs - given.sampler)[trained].abs())
        self.entropy.add(entropy[trained])
        at_bounds = clipped_tokens(given, self.config.loss)
        if at_bounds is not None:
            self.clipped = (self.clipped or 0) + at_bounds

    def metrics(self) -> Metrics:
        """`train_tokens` counts those whose weight or advantage is not 0."""
        trained = self.entropy.count
        return {
            "loss": self.loss,
            "train_tokens": trained,
            "model_tokens": self.model_tokens,
            "entropy": self.entropy.mean,
            "sampling/sampling_logp_difference/mean": self.gap.mean,
            "sampling/sampling_logp_difference/max": self.gap.max,
            "clip_ratio": None if self.clipped is None or not trained else self.clipped / trained,
        }
