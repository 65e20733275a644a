"""The gradient of a policy between two operations, as a file: the next one goes on from its bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from hone_worker.base.adapter_files import sync_folder, write_durably
from hone_worker.process.errors import HoneWorkerError

GRADIENT_FILE = "gradient.safetensors"
_TOKENS = "tokens"


@dataclass(frozen=True)
class Gradient:
    of: dict[str, torch.Tensor]  # by the name of the parameter
    tokens: int  # that went through the model for it


def read_gradient(folder: Path, parameters: dict[str, torch.Tensor]) -> Gradient:
    file = folder / GRADIENT_FILE
    try:
        tensors = load_file(file)
        tokens = int(tensors.pop(_TOKENS))
        gradient = {name: tensors.pop(name) for name in parameters}
    except (OSError, SafetensorError, KeyError, ValueError) as cause:
        raise _bad(file, f"it cannot be read: {cause!r}") from cause
    if tensors:
        raise _bad(file, f"it holds `{next(iter(tensors))}`, which the adapter has not")
    for name, parameter in parameters.items():
        if gradient[name].shape != parameter.shape:
            raise _bad(file, f"`{name}` has another shape than the adapter's")
    return Gradient({name: gradient[name].to(p.device, p.dtype) for name, p in parameters.items()}, tokens)


def write_gradient(folder: Path, gradient: Gradient) -> list[str]:
    tensors = {name: values.cpu().contiguous() for name, values in gradient.of.items()}
    tensors[_TOKENS] = torch.tensor(gradient.tokens, dtype=torch.int64)
    write_durably(folder / GRADIENT_FILE, save(tensors))
    sync_folder(folder)
    return [GRADIENT_FILE]


def _bad(file: Path, why: str) -> HoneWorkerError:
    return HoneWorkerError(
        f"The gradient {file.name} is damaged: {why}. Begin the step again: forward_backward with `fresh`.",
        code="bad_checkpoint",
        param="gradient",
    )
