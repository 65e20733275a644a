"""The scalar head that an operation trains, beside the adapter: its weights with a gradient, and its own AdamW."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from hone_worker.base.adapter_files import write_durably
from hone_worker.base.model import Base
from hone_worker.base.score_head import HEAD_FILE, HEAD_NAME, fresh_head, head_bytes, read_head
from hone_worker.train.adamw import make_adamw, moments_of
from hone_worker.train.checkpoint import moment_tensors, read_moments
from hone_worker.train.policy_cache import own
from hone_worker.train.step_data import StepConfig

#: Apart from the adapter's: a head may be younger, and AdamW's correction counts updates.
HEAD_OPTIMIZER_FILE = "score_optimizer.safetensors"


class HeadState:
    """That of policy N; a fresh one, by the step's seed, where policy N has none."""

    def __init__(self, base: Base, config: StepConfig) -> None:
        folder = Path(config.checkpoint)
        found = read_head(folder, base.model)
        self.weight = own(base, fresh_head(base.model, config.seed) if found is None else found)
        self.weight.requires_grad_()
        moments = None if found is None else read_moments(folder, self._named, HEAD_OPTIMIZER_FILE)
        self.optimizer = make_adamw(
            config.optimizer, self._named, moments and moments.on(base.device), base.paths
        )

    @property
    def _named(self) -> dict[str, torch.Tensor]:
        return {HEAD_NAME: self.weight}

    def write(self, folder: Path) -> list[str]:
        """Each file is on disk when this returns; the folder is the caller's to sync."""
        write_durably(folder / HEAD_FILE, head_bytes(self.weight))
        tensors = moment_tensors(moments_of(self.optimizer, self._named))
        write_durably(folder / HEAD_OPTIMIZER_FILE, save(tensors))
        return [HEAD_FILE, HEAD_OPTIMIZER_FILE]


def carry_head(source: Path, folder: Path) -> list[str]:
    """An operation that trains no head leaves it, and its moments, to the next policy as they are."""
    names = [name for name in (HEAD_FILE, HEAD_OPTIMIZER_FILE) if (source / name).is_file()]
    for name in names:
        write_durably(folder / name, (source / name).read_bytes())
    return names
