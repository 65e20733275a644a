"""The policy that the trainer worked on last stays in memory: mostly the next operation goes on from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hone_worker.base.adapter_files import CONFIG_FILE, WEIGHTS_FILE, read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.train.checkpoint import OPTIMIZER_FILE, TRAINER_FILE, Counters, Moments, parameter_names

FILES = (CONFIG_FILE, WEIGHTS_FILE, OPTIMIZER_FILE, TRAINER_FILE)
Digest = tuple[tuple[int, ...] | None, ...]


def digest_of(folder: Path) -> Digest:
    """Which files a policy's folder holds, None for one that is missing.

    It is made of what the system says of them, because reading them would take the time that is to be spared. Renaming
    the folder, which commits a policy, changes nothing. Writing to a file does, and so does another in its place.
    """
    return tuple(_identity(folder / name) for name in FILES)


def _identity(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:  # whoever reads it says what is wrong
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def own(base: Base, side: torch.Tensor) -> torch.Tensor:
    """A copy of an adapter's tensor as an operation computes with it: in float32, unless the base is finer itself."""
    return side.detach().to(base.device, torch.promote_types(torch.float32, base.dtype), copy=True)


@dataclass(frozen=True)
class Learning:
    """What a policy needs to be trained on, beside its weights."""

    moments: Moments | None  # on the base's device; None for a policy that was never trained
    counters: Counters


@dataclass(eq=False)
class Policy:
    """What a folder holds, as operations compute with it."""

    weights: LoraWeights  # of tensors that take a gradient
    digest: Digest | None  # of the folder with the same numbers; None while no folder has them
    learning: Learning | None = None  # None: not read yet

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """By their names in a checkpoint."""
        return dict(zip(parameter_names(self.weights), self.weights.parameters(), strict=True))


class PolicyCache:
    """One policy at most, and none while an operation has it: so no more memory is taken than by an operation."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._kept: Policy | None = None

    def take(self, folder: Path) -> Policy:
        """That of a folder, which is read unless it is what is kept."""
        # Before it is read: what changes meanwhile has another digest.
        digest = digest_of(folder)
        kept, self._kept = self._kept, None
        if kept is not None and kept.digest == digest:
            return kept
        # Before another one needs its place.
        del kept
        read = read_adapter(folder, self.base.model)
        tensors = {
            path: (own(self.base, a).requires_grad_(), own(self.base, b).requires_grad_())
            for path, (a, b) in sorted(read.tensors.items())
        }
        return Policy(LoraWeights(read.spec, tensors), digest)

    def give_back(self, policy: Policy) -> None:
        """Ends what an operation does with it. Its gradients are let go of."""
        parameters = policy.weights.parameters()
        for parameter in parameters:
            parameter.grad = None
        # Files are float32: what is finer would go on from other numbers than theirs.
        if policy.digest is None or any(p.dtype != torch.float32 for p in parameters):
            return
        # As another object, so that copies that were made of this one go with it.
        self._kept = replace(policy, weights=LoraWeights(policy.weights.spec, policy.weights.tensors))
