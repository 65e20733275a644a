"""Reads schemas in processes that can be ended, because a schema of 2 kB may need an automaton without end.

Run as a module it reads a schema a line on standard input and writes a verdict a line on standard output: `null`
where the process that it made for this schema came to an end without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn

from hone_worker.process.errors import HoneWorkerError
from hone_worker.schema.json_schema import PARAM, check_schema

#: Processor time that one schema may take. A schema with two hundred properties takes a fiftieth of a second. The
#: first try is short. A schema that needs longer goes to a second process, so that the others do not wait for it.
QUICK_SECONDS = 0.2
CPU_SECONDS = 1.0
ADDRESS_BYTES = 1 << 30
#: For a machine that is busy with other things.
WALL_SECONDS = 20
#: Above it a request is told to come again.
MOST_WAITING = 16
REMEMBERED = 256

TOO_MUCH = (
    f"This schema is not supported: it takes more than {CPU_SECONDS:.0f} s or {ADDRESS_BYTES >> 30} GiB to make a grammar of it. "
    "Use fewer patterns, above all of those that are combined with others (allOf, pattern beside minLength), "
    "and smaller bounds."
)


class SchemaChecks:
    """Gives verdicts and remembers them, because the rollouts of a group ask with the same schema."""

    def __init__(self) -> None:
        self._quick, self._slow = _Lane(QUICK_SECONDS), _Lane(CPU_SECONDS)
        self._lock = threading.Lock()
        self._verdicts: OrderedDict[str, Future[dict[str, Any]]] = OrderedDict()
        self._waiting = 0

    async def check(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema as engines take it."""
        verdict = await asyncio.wrap_future(self._ask(json.dumps(schema)))
        if "schema" in verdict:
            return verdict["schema"]
        raise HoneWorkerError(verdict["message"], code=verdict["code"], param=verdict["param"])

    def _ask(self, text: str) -> Future[dict[str, Any]]:
        with self._lock:
            known = self._verdicts.get(text)
            if known is not None:
                self._verdicts.move_to_end(text)
                return known
            if self._waiting >= MOST_WAITING:
                raise HoneWorkerError(
                    "Too many schemas are being read. Send the request again.", code="busy", status=503
                )
            self._waiting += 1
            asked: Future[dict[str, Any]] = Future()
            # A request that leaves must not end the check for others that ask the same.
            asked.set_running_or_notify_cancel()
            self._verdicts[text] = asked
            if len(self._verdicts) > REMEMBERED:
                self._verdicts.popitem(last=False)
        self._quick.threads.submit(self._work, text, asked, self._quick)
        return asked

    def _work(self, text: str, asked: Future[dict[str, Any]], lane: _Lane) -> None:
        try:
            verdict = lane.answer(text)
            if verdict is None and lane is self._quick:
                self._slow.threads.submit(self._work, text, asked, self._slow)
                return
        except BaseException as error:
            # A process that could not be started says nothing about the schema.
            self._end(text, forget=True)
            asked.set_exception(error)
            return
        self._end(text, forget=False)
        asked.set_result(verdict or {"message": TOO_MUCH, "code": "unsupported_schema", "param": PARAM})

    def _end(self, text: str, *, forget: bool) -> None:
        with self._lock:
            self._waiting -= 1
            if forget:
                self._verdicts.pop(text, None)


class _Lane:
    """A process that forks another one for each schema, and the thread that talks with it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.threads = ThreadPoolExecutor(1, "hone-schema")
        self._process: subprocess.Popen[bytes] | None = None

    def answer(self, text: str) -> dict[str, Any] | None:
        """The verdict; None if the schema took more than it may."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "hone_worker.schema.schema_process", str(self.seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={k: v for k, v in os.environ.items() if not k.startswith("HONE_")},
            )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())


def main() -> None:
    seconds = float(sys.argv[1])
    # macOS may refuse it; the time is limited there as well.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _check(line, seconds, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        sys.stdout.buffer.write(answer if answer.endswith(b"\n") else b"null\n")
        sys.stdout.buffer.flush()


def _check(line: bytes, seconds: float, writing: int) -> NoReturn:
    # Nothing catches their signals.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    # What the library says of a failure goes into the verdict.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        try:
            verdict: dict[str, Any] = {"schema": check_schema(json.loads(line))}
        except HoneWorkerError as error:
            verdict = {"message": error.message, "code": error.code, "param": error.param}
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(verdict).encode() + b"\n")
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
