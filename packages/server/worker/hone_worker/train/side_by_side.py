"""Parts of a step at the same time, on a processor: a thread for each, with one thread of torch's own.

A small part is too little for two threads of torch's, which take turns at each of its thousand operations; two parts
keep two cores busy, because an operation lets go of Python's lock. What each gives is the same as alone, and whoever
adds it up does so in the plan's order. So the bits of a step do not hang on which parts went side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from hone_worker.base.model import Base

T = TypeVar("T")


def can_be_side_by_side(base: Base) -> bool:
    """Whether nothing that this base computes by is made for one thread alone. A GPU is busy with one part."""
    if base.device.type != "cpu" or base.router.joined is not None or base.paths.layer == "compiled":
        return False
    return not any(kind == "longrope" or "dynamic" in kind for kind in _rope_types(base))


def _rope_types(base: Base) -> set[str]:
    """Of all layers. Frequencies of some types are replaced in every forward, by its own longest sequence."""
    config: Any = getattr(base.model.config, "get_text_config", lambda: base.model.config)()
    given = getattr(config, "rope_parameters", None) or {}
    kinds = (given, *(each for each in given.values() if isinstance(each, dict)))
    return {kind["rope_type"] for kind in kinds if kind.get("rope_type")}


class SideBySide:
    """For the life of a worker. The threads begin when they are first needed, and never hold up its end."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """What each gives, in their order, once all are over; raises what the first of them raises."""
        while len(self._threads) < self.count:
            thread = threading.Thread(target=self._serve, name="hone-part", daemon=True)
            self._threads.append(thread)
            thread.start()
        outcomes: list[tuple[BaseException | None, T | None] | None] = [None] * len(calls)
        left = threading.Semaphore(0)

        def work_on(number: int, call: Callable[[], T]) -> None:
            try:
                outcomes[number] = None, call()
            except BaseException as error:
                outcomes[number] = error, None
            finally:
                left.release()

        for number, call in enumerate(calls):
            self._work.put(lambda number=number, call=call: work_on(number, call))  # type: ignore[misc]
        for _ in calls:
            left.acquire()
        found: list[T] = []
        for outcome in outcomes:
            assert outcome is not None
            error, result = outcome
            if error is not None:
                raise error
            found.append(result)  # type: ignore[arg-type]
        return found

    def end(self) -> None:
        """Lets the threads go."""
        for _ in self._threads:
            self._work.put(None)
        self._threads = []

    def _serve(self) -> None:
        # A thread takes the process's number the first time that it is asked for, which others change meanwhile.
        torch.get_num_threads()
        torch.set_num_threads(1)  # OpenMP keeps this number per thread
        while (work := self._work.get()) is not None:
            work()
            # Nothing of it is held while the next is waited for.
            del work
