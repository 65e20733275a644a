"""`POST /train` and its abort: an operation in, a line of JSON for each thing that happens out."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hone_worker.base.model import Base
from hone_worker.process.compute import Compute
from hone_worker.process.errors import HoneWorkerError, envelope_of
from hone_worker.process.service import read_body, read_bytes
from hone_worker.train.objectives.custom import CUSTOM, CustomObjective, custom
from hone_worker.train.operation import Event, train_steps
from hone_worker.train.options import Strict
from hone_worker.train.step_data import parse_step_data

log = logging.getLogger("hone_worker")

# Nine bytes a token: the step data of a hundred million tokens is refused, anything that trains in a day is not.
MAX_STEP_DATA_BYTES = 1 << 30
HEARTBEAT_SECONDS = 0.9


class ObjectiveBody(Strict):
    name: str
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


def _card(found: CustomObjective) -> dict[str, Any]:
    schema = found.objective.options.model_json_schema()
    return {"name": found.objective.name, "file": found.file.name, "sha256": found.sha256, "schema": schema}


def routes(base: Base, compute: Compute) -> list[Route]:
    # The compute thread runs one operation at a time; this is how its abort is found.
    running: dict[str, threading.Event] = {}

    async def train(request: Request) -> Response:
        body = await read_bytes(request, MAX_STEP_DATA_BYTES)
        data, config = await asyncio.to_thread(parse_step_data, body)
        del body
        aborted = threading.Event()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Event | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        generator = train_steps(base, data, config, aborted.is_set)
        future = compute.run_training(generator, tell)
        running[config.operation_id] = aborted

        def ended(_future: Future[None]) -> None:
            if running.get(config.operation_id) is aborted:
                del running[config.operation_id]
            tell(None)

        future.add_done_callback(ended)
        return _Lines(_lines(events, future, lambda: compute.progress), aborted)

    async def abort(request: Request) -> Response:
        operation = request.path_params["operation_id"]
        flag = running.get(operation)
        if flag is None:
            message = f"No operation '{operation}' is running here. Read its outcome from its event stream."
            raise HoneWorkerError(message, code="operation_not_found", status=404, param="operation_id")
        flag.set()
        return JSONResponse({"operation_id": operation, "aborting": True})

    async def objectives(_request: Request) -> Response:
        return JSONResponse({"objectives": [_card(found) for found in CUSTOM.values()]})

    async def check(request: Request) -> Response:
        """Whether a step could be planned with this objective and these options."""
        body = await read_body(request, ObjectiveBody)
        found = custom(body.name)
        found.options(body.options)
        return JSONResponse(_card(found))

    return [
        Route("/objectives", objectives, methods=["GET"]),
        Route("/objectives", check, methods=["POST"]),
        Route("/train", train, methods=["POST"]),
        Route("/train/{operation_id}/abort", abort, methods=["POST"]),
    ]


class _Lines(StreamingResponse):
    """Aborts its operation when it ends early: a result that nobody hears must not keep the trainer busy."""

    def __init__(self, lines: AsyncIterator[bytes], aborted: threading.Event) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self.aborted = aborted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.aborted.set()


async def _lines(
    events: asyncio.Queue[Event | None], future: Future[None], progress: Callable[[], int]
) -> AsyncIterator[bytes]:
    while True:
        try:
            event = await asyncio.wait_for(events.get(), HEARTBEAT_SECONDS)
        except TimeoutError:
            event = {"event": "heartbeat"}
        if event is None:
            break
        if event["event"] == "heartbeat":
            event = {**event, "progress": progress()}
        yield _line(event)
    if (error := future.exception()) is not None:
        if not isinstance(error, HoneWorkerError):
            log.error("training failed", exc_info=error)
        envelope = envelope_of(error)[1]["error"]
        yield _line({"event": "error", "error": {k: envelope[k] for k in ("message", "type", "code")}})


def _line(event: dict[str, Any]) -> bytes:
    # Not a number would be no JSON: a metric without a value is null.
    return json.dumps(event, allow_nan=False).encode() + b"\n"
