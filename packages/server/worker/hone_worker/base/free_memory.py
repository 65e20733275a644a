"""How much memory a device has left for this process, as the system tells it, and whether it was too little."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
#: Of a container, in bytes: its limit, what it uses, and how much of that is files that can be read again.
CONTAINERS = (
    # cgroup 2
    (
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory.current"),
        Path("/sys/fs/cgroup/memory.stat"),
    ),
    # cgroup 1
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)


def total_bytes() -> int:
    """The memory of this machine, or of the container that this process is in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(limit for limit, _ in _containers())])


def free_bytes(device: torch.device) -> int:
    """What can be allocated now. On a GPU what torch holds and does not use counts as free."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = [int(n) * 1024 for n in re.findall(r"^MemAvailable:\s*(\d+) kB", _text(MEMINFO), re.M)]
    # A system without this file does not tell what is free: half of all is a guess on the safe side.
    return min(
        [*(available or [total_bytes() // 2]), *(max(0, limit - used) for limit, used in _containers())]
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. torch's allocator on CPUs says so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def _containers() -> list[tuple[int, int]]:
    """Limit and usage of each. Without a limit its file holds "max", or more than any memory."""
    found = []
    for limit, used, stat in CONTAINERS:
        if (text := _text(limit).strip()).isdigit():
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _text(stat), re.M)
            usage = int(_text(used).strip() or 0) - int(cached[1] if cached else 0)
            found.append((int(text), max(0, usage)))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another system has no such file
        return ""
