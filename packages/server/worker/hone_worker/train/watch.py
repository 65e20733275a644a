"""How long an operation computes."""

from __future__ import annotations

import time


class Watch:
    """Seconds of this operation's own work: what other work runs while the generator waits is not its."""

    def __init__(self) -> None:
        self.total = 0.0
        self._lap = 0.0
        self._since = 0.0

    def resume(self) -> None:
        self._since = time.perf_counter()

    def pause(self) -> None:
        spent = time.perf_counter() - self._since
        self.total += spent
        self._lap += spent

    def lap(self) -> float:
        self.pause()
        lap, self._lap = self._lap, 0.0
        self.resume()
        return lap
