"""The policy that an operation trains: weights with gradients, their moments and its counters."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import torch

from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import fault
from hone_worker.train.adamw import make_adamw, moments_of
from hone_worker.train.checkpoint import Counters, read_counters, read_moments, write_checkpoint
from hone_worker.train.head_state import HeadState, carry_head
from hone_worker.train.policy_cache import Learning, PolicyCache, digest_of
from hone_worker.train.step_data import StepConfig


class PolicyState:
    """Policy N, whose folder is only read; after its updates `write` makes it policy N+1."""

    def __init__(self, base: Base, config: StepConfig, policies: PolicyCache, *, head: bool = False) -> None:
        """With `head` its scalar head is trained too, a fresh one where it has none."""
        self.config = config
        self.base_name = base.name
        self.policies = policies
        folder = Path(config.checkpoint)
        policy = self.policy = policies.take(folder)
        spec = policy.weights.spec
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
        # Adapters, logprobs and the loss are float32 over any base that is not finer itself.
        self.exact = torch.promote_types(torch.float32, base.dtype)

        self.optimizer_path = base.paths.optimizer
        self.weights = policy.weights
        self.parameters = policy.parameters
        if policy.learning is None:
            moments = read_moments(folder, self.parameters)
            policy.learning = Learning(moments and moments.on(base.device), read_counters(folder))
        self.optimizer_steps = policy.learning.counters.optimizer_steps
        self.num_tokens = policy.learning.counters.num_tokens
        self.optimizer = make_adamw(config.optimizer, self.parameters, policy.learning.moments, base.paths)
        self.head = HeadState(base, config) if head else None
        self.optimizers = [self.optimizer, *([self.head.optimizer] if self.head else [])]

    @property
    def head_weight(self) -> torch.Tensor | None:
        return None if self.head is None else self.head.weight

    @property
    def trained(self) -> list[torch.Tensor]:
        """All that takes a gradient, in a fixed order."""
        return [*self.parameters.values(), *([self.head.weight] if self.head else [])]

    def update(self) -> tuple[float, float]:
        """One optimizer step along the gradients, which are let go of. Gives its learning rate and their norm."""
        # From here on the weights are those of no folder, until they are written.
        self.policy.digest = None
        options = self.config.optimizer
        parameters = self.trained
        for parameter in parameters:
            if parameter.grad is None:  # a module that no token went through, such as an unused expert
                parameter.grad = torch.zeros_like(parameter)
        foreach = self.optimizer_path != "loop"
        norm = torch.nn.utils.clip_grad_norm_(parameters, options.max_grad_norm, foreach=foreach)
        require_finite(norm)
        self.optimizer_steps += 1
        warm = min(1.0, self.optimizer_steps / options.warmup_steps) if options.warmup_steps else 1.0
        learning_rate = options.learning_rate * warm
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        # Kernels over lists and bitsandbytes do not tell that they wrote, and copies of the adapter are kept by its version.
        torch.autograd.graph.increment_version(parameters)
        fault("worker.optimizer")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return learning_rate, float(norm)

    def write(self) -> list[str]:
        """The files of policy N+1 in the staging folder, each on disk when this returns."""
        config = self.config
        counters = {
            "step": config.step,
            "optimizer_steps": self.optimizer_steps,
            "num_tokens": self.num_tokens,
            "seed": config.seed,
        }
        detached = {path: (a.detach(), b.detach()) for path, (a, b) in self.weights.tensors.items()}
        weights = LoraWeights(self.weights.spec, detached)
        moments = moments_of(self.optimizer, self.parameters)
        try:
            staging = Path(config.staging)
            # Before the folder is synced.
            head = self.head.write(staging) if self.head else carry_head(Path(config.checkpoint), staging)
            files = sorted([*head, *write_checkpoint(staging, weights, self.base_name, moments, counters)])
        except OSError as cause:
            full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
            raise HoneWorkerError(
                f"The checkpoint cannot be written: {cause.strerror}. Nothing was kept; free some space or "
                "check the data directory, then train again.",
                code="disk_full" if full else "checkpoint_failed",
                status=500,
            ) from cause
        # Weights that are no numbers are refused where they are read.
        if bool(torch.stack([p.detach().isfinite().all() for p in self.weights.parameters()]).all()):
            self.policy.learning = Learning(moments, Counters(self.optimizer_steps, self.num_tokens))
            self.policy.digest = digest_of(Path(config.staging))
        return files

    def release(self) -> None:
        """Gradients and moments are the size of the adapter several times over: what is not kept goes at once."""
        self.policies.give_back(self.policy)
        self.parameters = {}


#: None of a module that no token went through, such as an unused expert; [] where nothing takes a gradient.
Gradients = Sequence[torch.Tensor | None]


def gradients_of(loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> Gradients:
    """Of a micro-batch as a whole: one whose backward fails on the way has added nothing to any parameter."""
    return torch.autograd.grad(loss, parameters, allow_unused=True) if loss.requires_grad else []


def add_gradients(gradients: Gradients, parameters: Sequence[torch.Tensor]) -> None:
    """To those of the micro-batches before it: called in the plan's order, so that sums have the same bits."""
    for parameter, gradient in zip(parameters, gradients, strict=bool(gradients)):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def require_finite(values: torch.Tensor) -> None:
    if not bool(values.detach().isfinite().all()):
        raise HoneWorkerError(
            "The loss or its gradient is not finite. Nothing was written; train from the same policy "
            "with a lower learning rate, or leave this batch out.",
            code="non_finite",
        )
