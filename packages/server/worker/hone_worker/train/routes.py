"""`POST /train`, `/forward_backward` and `/optim_step`, and their abort: an operation in, a line of JSON for each thing that happens out."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hone_worker.base.decoder_layers import telling
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.process.compute import Compute
from hone_worker.process.errors import HoneWorkerError, envelope_of
from hone_worker.process.service import read_body, read_bytes
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.objectives.custom import CUSTOM, CustomObjective, custom
from hone_worker.train.operation import Event, train_steps
from hone_worker.train.options import Strict
from hone_worker.train.primitives.data import parse_forward, parse_optim
from hone_worker.train.primitives.operations import forward_backward, optim_step
from hone_worker.train.probe import adapter_weights, probe
from hone_worker.train.prompt_logprobs import prompt_logprobs
from hone_worker.train.step_data import parse_step_data

log = logging.getLogger("hone_worker")
T = TypeVar("T")

# Nine bytes a token: the step data of a hundred million tokens is refused, anything that trains in a day is not.
MAX_STEP_DATA_BYTES = 1 << 30
HEARTBEAT_SECONDS = 0.9


class ObjectiveBody(Strict):
    name: str
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


class ProbeBody(Strict):
    adapter: str


class LogprobsBody(Strict):
    adapter: str
    sequences: Annotated[list[Annotated[list[int], Field(min_length=2)]], Field(min_length=1)]


def _absolute(folder: str) -> Path:
    if not Path(folder).is_absolute():
        raise HoneWorkerError("Give an absolute path.", code="invalid_request", param="adapter")
    return Path(folder)


def _card(found: CustomObjective) -> dict[str, Any]:
    schema = found.objective.options.model_json_schema()
    return {"name": found.objective.name, "file": found.file.name, "sha256": found.sha256, "schema": schema}


def routes(base: Base, compute: Compute, memory: TrainerMemory) -> list[Route]:
    # The compute thread runs one operation at a time; this is how its abort is found.
    running: dict[str, threading.Event] = {}

    async def train(request: Request) -> Response:
        data, config = await read(request, parse_step_data)
        return run(config.operation_id, lambda aborted: train_steps(base, data, config, aborted, memory))

    async def forward(request: Request) -> Response:
        data, config = await read(request, parse_forward)
        return run(config.operation_id, lambda aborted: forward_backward(base, data, config, aborted, memory))

    async def optimise(request: Request) -> Response:
        config = await read(request, parse_optim)
        return run(config.operation_id, lambda aborted: optim_step(base, config, aborted, memory))

    async def read(request: Request, parse: Callable[[bytes], T]) -> T:
        return await asyncio.to_thread(parse, await read_bytes(request, MAX_STEP_DATA_BYTES))

    def run(operation: str, begin: Callable[[Callable[[], bool]], Generator[Event, None, None]]) -> Response:
        aborted = threading.Event()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Event | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        future = compute.run_training(begin(aborted.is_set), tell)
        running[operation] = aborted

        def ended(_future: Future[None]) -> None:
            if running.get(operation) is aborted:
                del running[operation]
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

    async def probed(request: Request) -> Response:
        body = await read_body(request, ProbeBody)
        folder = _absolute(body.adapter)
        future = compute.submit(lambda: probe(base, folder))
        return JSONResponse(await asyncio.wrap_future(future))

    async def likelihoods(request: Request) -> Response:
        body = await read_body(request, LogprobsBody)
        folder = _absolute(body.adapter)
        weights = await asyncio.wrap_future(compute.submit(lambda: adapter_weights(base, folder)))
        found: list[list[float]] = []
        # One at a time: requests decode in between.
        for ids in body.sequences:
            if await request.is_disconnected():
                return Response(status_code=499)
            found.append(await asyncio.wrap_future(compute.submit(partial(likelihood, weights, ids))))
        return JSONResponse({"logprobs": found})

    def likelihood(weights: LoraWeights, ids: list[int]) -> list[float]:
        with telling(base.model, compute.tick):
            values = prompt_logprobs(base, weights, ids)
        compute.tick()
        return values

    return [
        Route("/probe", probed, methods=["POST"]),
        Route("/logprobs", likelihoods, methods=["POST"]),
        Route("/objectives", objectives, methods=["GET"]),
        Route("/objectives", check, methods=["POST"]),
        Route("/train", train, methods=["POST"]),
        Route("/forward_backward", forward, methods=["POST"]),
        Route("/optim_step", optimise, methods=["POST"]),
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
