"""Instants in the worker's code at which a test may break it; the server's own are in `faults/fault.ts`.

`HONE_FAULT=point[@nth]:action`: at its nth passing the process kills itself (`kill`), stops until it gets
SIGCONT (`stop`), or finds the disk full (`enospc`). `HONE_FAULT_MARK` names the file that says it struck.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable

from hone_worker.process.errors import HoneWorkerError

POINTS = frozenset(
    {
        "worker.load",
        "worker.forward",
        "worker.backward",
        "worker.optimizer",
        "worker.file-begin",
        "worker.file-half",
        "worker.file-end",
        "worker.result",
        "worker.adapter-load",
        "worker.decode",
    }
)
_SPEC = re.compile(r"(worker\.[a-z-]+)(?:@([1-9]\d*))?:(kill|stop|enospc)")


def _off(_point: str) -> None:
    pass


def arm(spec: str, mark: str) -> Callable[[str], None]:
    """The function that strikes at the point of `spec`; one that does nothing where it is not the worker's."""
    if not spec.startswith("worker."):
        return _off
    parsed = _SPEC.fullmatch(spec)
    if parsed is None or parsed[1] not in POINTS:
        message = f"HONE_FAULT is '{spec}'. The worker's points are {', '.join(sorted(POINTS))}."
        raise HoneWorkerError(message, code="invalid_config")
    named, action = parsed[1], parsed[3]
    left = int(parsed[2] or 1)
    lock = threading.Lock()  # parts of a step pass a point on several threads

    def pass_point(point: str) -> None:
        nonlocal left
        if point != named:
            return
        with lock:
            left -= 1
            strikes = left == 0
        if not strikes or (mark and not _first(mark)):
            return
        if action == "enospc":
            raise OSError(errno.ENOSPC, f"No space left on device (fault {point})")
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
        # The signal may reach another thread first: nothing may happen here meanwhile.
        time.sleep(0.2)

    return pass_point


def _first(mark: str) -> bool:
    """A fault strikes once, even if the next process inherits the environment."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


#: Does nothing unless HONE_FAULT names the point.
fault = arm(os.environ.get("HONE_FAULT", ""), os.environ.get("HONE_FAULT_MARK", ""))
