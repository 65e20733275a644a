"""The machine: versions, device, and the two ceilings that everything else is compared with."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

from gpu.stage import Stage, timed

PACKAGES = ("torch", "triton", "transformers", "peft", "trl", "liger-kernel", "safetensors")


def run(stage: Stage) -> None:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    device: dict[str, object] = {"device": stage.device}
    if stage.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        device |= {
            "card": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_free": free,
            "memory_total": total,
            "cuda": torch.version.cuda,
        }
    stage.tell(kind="versions", **versions)
    stage.tell(kind="device", **device)
    stage.tell(kind="copy", bytes_per_second=copy_rate(stage))
    stage.tell(kind="gemm", flops_per_second=gemm_rate(stage))


def copy_rate(stage: Stage) -> float:
    """Bytes read and written in a second by a copy within the device's memory."""
    size = (4 << 30) if stage.device == "cuda" else (8 << 20)
    source = torch.ones(size, dtype=torch.uint8, device=stage.device)
    target = torch.empty_like(source)
    best = min(timed(lambda: target.copy_(source)) for _ in range(6))
    return 2 * size / best


def gemm_rate(stage: Stage) -> float:
    """FLOPs in a second of a square product of random numbers, in the precision that the stage computes in."""
    size = 8192 if stage.device == "cuda" else 384
    a, b = (torch.randn(size, size, device=stage.device).to(stage.dtype) for _ in range(2))
    best = min(timed(lambda: a @ b) for _ in range(8))
    return 2 * size**3 / best
