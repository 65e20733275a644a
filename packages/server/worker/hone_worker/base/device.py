"""The device that a model computes on, looked at before anything is loaded."""

from __future__ import annotations

import torch

from hone_worker.process.errors import HoneWorkerError


def require_device(name: str) -> torch.device:
    """The device of this name, or an error that says what is missing: the build of torch, or the GPU."""
    if not name.startswith("cuda"):
        return torch.device(name)
    if torch.version.cuda is None:
        raise HoneWorkerError(
            f"torch {torch.__version__} is a build without CUDA. Run `npx @hone/server setup --torch cuda` on a "
            "machine with an NVIDIA GPU, or start without `--device cuda`.",
            code="bad_device",
            param="device",
        )
    if not torch.cuda.is_available():
        raise HoneWorkerError(
            f"torch {torch.__version__} finds no NVIDIA GPU that it can use (CUDA {torch.version.cuda}). See "
            "whether `nvidia-smi` lists one, or start without `--device cuda`.",
            code="bad_device",
            param="device",
        )
    device = torch.device(name)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise HoneWorkerError(
            f"There is no GPU {device.index}: this machine has {torch.cuda.device_count()}.",
            code="bad_device",
            param="device",
        )
    return device
