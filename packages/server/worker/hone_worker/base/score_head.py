"""The scalar head of a reward model: one row of weights that reads the last hidden state, in a file beside an adapter.

The file is transformers' own: `score.weight` [1, hidden], as in its sequence classifiers. The adapter beside it stays
a plain one, which every engine loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from hone_worker.process.errors import HoneWorkerError

HEAD_FILE = "score.safetensors"
HEAD_NAME = "score.weight"


def head_width(model: nn.Module) -> int:
    config: Any = model.config
    return int(config.get_text_config().hidden_size)


def fresh_head(model: nn.Module, seed: int) -> Tensor:
    """A new head as transformers begins it. It leaves torch's own generator alone."""
    config: Any = model.config
    spread = float(getattr(config.get_text_config(), "initializer_range", 0.02) or 0.02)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, head_width(model), generator=generator) * spread


def read_head(folder: Path, model: nn.Module) -> Tensor | None:
    """The head in a policy's folder, checked against the base; None where there is none."""
    file = folder / HEAD_FILE
    if not file.is_file():
        return None
    try:
        stored = safetensors.torch.load(file.read_bytes())
    except Exception as error:
        raise _bad("it is damaged or not safetensors.") from error
    if set(stored) != {HEAD_NAME}:
        raise _bad(f"it holds {', '.join(sorted(stored)) or 'nothing'}, and {HEAD_NAME} alone belongs there.")
    weight, shape = stored[HEAD_NAME], (1, head_width(model))
    if tuple(weight.shape) != shape:
        raise _bad(f"{HEAD_NAME} has shape {tuple(weight.shape)}, the base needs {shape}.")
    if not weight.dtype.is_floating_point or not bool(torch.isfinite(weight.float()).all()):
        raise _bad(f"{HEAD_NAME} holds values that are not finite numbers.")
    return weight.to(torch.float32).clone()


def head_bytes(weight: Tensor) -> bytes:
    written = weight.detach().to("cpu", torch.float32).contiguous()
    return safetensors.torch.save({HEAD_NAME: written}, {"format": "pt"})


def _bad(why: str) -> HoneWorkerError:
    return HoneWorkerError(f"Not a usable head: {HEAD_FILE}: {why}", code="bad_adapter", param="checkpoint")
