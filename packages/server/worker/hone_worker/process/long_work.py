"""Work on long texts stands aside: one thread does it, a piece after another, while the loop answers others.

The tokenizer leaves the interpreter's lock while it works, so that a short request waits for no long one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from hone_worker.process.errors import HoneWorkerError

T = TypeVar("T")

#: A body of so many bytes takes some 20 ms, and may be done in between.
LONG_BYTES = 64 * 1024
#: The server has at most as many requests under way as connections (http-renderer.ts), so none of them is refused.
MOST_WAITING = 16


class LongWork:
    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "hone-long")
        self._one = asyncio.Semaphore(1)
        self._waiting = 0

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """Runs the work at once, or in its turn if the body is long. Gives it up if nobody waits for it any more."""
        if int(request.headers.get("content-length") or LONG_BYTES) < LONG_BYTES:
            return work()
        if self._waiting >= MOST_WAITING:
            raise HoneWorkerError(
                "Too many long texts wait to be tokenised. Send the request again.", code="busy", status=503
            )
        self._waiting += 1
        try:
            async with self._one:
                if await request.is_disconnected():
                    raise ClientDisconnect
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1
