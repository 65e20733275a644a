"""The one thread that runs the model: decode steps, and in between them the steps of a training generator."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import torch

from hone_worker.process.errors import HoneWorkerError

log = logging.getLogger("hone_worker")
T = TypeVar("T")
Event = dict[str, Any]


class Decoder(Protocol):
    """What decodes. Both methods are called on the compute thread only."""

    def has_work(self) -> bool: ...

    def step(self) -> None:
        """One token for each live request. It reports errors to its requests and never raises."""
        ...


class Compute:
    """Owns the model. Other threads hand it functions to run, and wait for futures."""

    def __init__(
        self, *, decode_threads: int = 1, train_threads: int = 2, training_share: float = 0.5
    ) -> None:
        """`training_share`: the part of the time that training gets while requests are live too."""
        self.decode_threads = decode_threads
        self.train_threads = train_threads
        self.training_share = training_share
        self.progress = 0
        self.phase = "starting"
        self._decoder: Decoder | None = None
        self._wake = threading.Condition()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._training: tuple[Generator[Event, None, None], Callable[[Event], None], Future[None]] | None = (
            None
        )
        self._stopping = False
        self._threads_now = 0
        self._decode_until = 0.0
        self._thread = threading.Thread(target=self._run, name="hone-compute", daemon=True)

    def start(self, decoder: Decoder | None = None) -> None:
        self._decoder = decoder
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after the step that it is in."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def notify(self) -> None:
        """Says that the decoder may have work."""
        with self._wake:
            self._wake.notify()

    def tick(self) -> None:
        """Counts progress. Called on the compute thread, after each decode step, prefill or micro-batch."""
        self.progress += 1

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Runs a function on the compute thread, between two steps."""
        future: Future[T] = Future()
        with self._wake:
            if self._stopping:
                future.set_exception(_stopping())
                return future
            self._calls.append((call, future))
            self._wake.notify()
        return future

    @property
    def training(self) -> bool:
        return self._training is not None

    def run_training(
        self, generator: Generator[Event, None, None], on_event: Callable[[Event], None]
    ) -> Future[None]:
        """Advances the generator one step at a time among the decode steps.

        `on_event` gets what it yields, on the compute thread. The future ends as the generator does, and
        carries its exception. A second generator meanwhile is refused with 409 `busy`.
        """
        future: Future[None] = Future()
        with self._wake:
            if self._stopping:
                raise _stopping()
            if self._training is not None:
                message = (
                    "The trainer is busy with another operation. Wait for its result, then send this one."
                )
                raise HoneWorkerError(message, code="busy", status=409)
            # From here on a waiter that gives up cannot cancel the future under the thread that sets it.
            future.set_running_or_notify_cancel()
            self._training = (generator, on_event, future)
            self._wake.notify()
        return future

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException:
            # Without this thread the process would answer /health and nothing else: it must end, to be replaced.
            log.critical("the compute thread failed", exc_info=True)
            os._exit(70)
        self._fail_all()

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._stopping and not self._calls and self._training is None and not self._live():
                    self.phase = "idle"
                    self._wake.wait()
                if self._stopping:
                    return
                calls = list(self._calls)
                self._calls.clear()
            for number, (call, future) in enumerate(calls):
                # Forwards that score come many at once, and each may take as long as a thousand tokens.
                if number > 0 and self._live():
                    self._decode()
                self._call(call, future)
            live = self._live()
            if live:
                self._decode()
            if self._training is not None and (not live or time.monotonic() >= self._decode_until):
                self.phase = "training"
                self._train()

    def _live(self) -> bool:
        return self._decoder is not None and self._decoder.has_work()

    def _decode(self) -> None:
        assert self._decoder is not None
        self.phase = "decoding"
        self._set_threads(self.decode_threads)
        self._decoder.step()

    def _call(self, call: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        # Threads share a sum among them: a score must not hang on whether somebody decoded before it.
        self._set_threads(self.train_threads)
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _train(self) -> None:
        assert self._training is not None
        generator, on_event, future = self._training
        self._set_threads(self.train_threads)
        began = time.monotonic()
        failure: BaseException | None = None
        try:
            on_event(next(generator))
        except StopIteration:
            self._training = None
        except BaseException as error:
            self._training = None
            failure = error
            generator.close()
        self.tick()
        now = time.monotonic()
        # Requests then get their part of the time before the next micro-batch.
        self._decode_until = now + (now - began) * (1 - self.training_share) / self.training_share
        if self._training is None:
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)

    def _set_threads(self, count: int) -> None:
        # OpenMP keeps this number per thread, so it is set here and not where the process starts.
        if count != self._threads_now:
            # A thread that has not asked for it yet would take the process's number at its first operation.
            torch.get_num_threads()
            torch.set_num_threads(count)
            self._threads_now = count

    def _fail_all(self) -> None:
        with self._wake:
            calls = list(self._calls)
            self._calls.clear()
            training, self._training = self._training, None
        for _call, future in calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(_stopping())
        if training is not None:
            training[0].close()
            training[2].set_exception(_stopping())


def _stopping() -> HoneWorkerError:
    return HoneWorkerError("The worker is ending. Send this to its successor.", code="stopping", status=503)
