"""HTTP plumbing that every child of the server shares: key, errors, ready line, end with the parent."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hone_worker.process.errors import HoneWorkerError, envelope_of, error_envelope

log = logging.getLogger("hone_worker")
Body = TypeVar("Body", bound=BaseModel)

#: Longest time between the wish to end (standard input closed, SIGTERM) and the end of the process.
GRACE_SECONDS = 2.0
MAX_JSON_BYTES = 64 * 1024 * 1024


class KeyCheck:
    """A plain ASGI layer: Starlette's own middleware class would hide disconnects from streams."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self.expected):
                message = "Wrong or missing key. Send 'Authorization: Bearer <HONE_WORKER_KEY of this boot>'."
                body = error_envelope(message, 401, "invalid_api_key")
                await JSONResponse(body, 401)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def create_app(routes: Sequence[BaseRoute], key: str) -> Starlette:
    """A Starlette app in which every route needs the key and every error is the contract's envelope."""
    app = Starlette(
        routes=list(routes),
        exception_handlers={
            HoneWorkerError: _on_error,
            ValidationError: _on_validation,
            HTTPException: _on_http,
            ClientDisconnect: _on_disconnect,
            Exception: _on_error,
        },
    )
    app.add_middleware(KeyCheck, key=key)
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    status, body = envelope_of(error)
    if not isinstance(error, HoneWorkerError):
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse(body, status, headers={"Retry-After": "1"} if status == 503 else None)


async def _on_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    converted = validation_error(error)
    return JSONResponse(converted.envelope(), converted.status)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}."
    code = "route_not_found" if error.status_code == 404 else "http_error"
    return JSONResponse(error_envelope(message, error.status_code, code), error.status_code)


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)


def validation_error(error: ValidationError) -> HoneWorkerError:
    """The first fault, by field. Values are left out: they may be prompts."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    if first["type"] == "extra_forbidden":
        message = f"'{param}' is not an option of this service. Leave it out."
        return HoneWorkerError(message, code="unknown_parameter", param=param)
    text = f"{first['msg']} (at '{param}')." if param else f"{first['msg']}."
    return HoneWorkerError(text, code="invalid_request", param=param)


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body, refused as soon as it passes the limit."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            message = f"The body is larger than {limit} bytes. Send less in one request."
            raise HoneWorkerError(message, code="body_too_large", status=413)
        parts.append(part)
    return b"".join(parts)


async def read_body(request: Request, model: type[Body], limit: int = MAX_JSON_BYTES) -> Body:
    """A JSON body, validated."""
    raw = await read_bytes(request, limit)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise validation_error(error) from error


def health_route(boot: str, status: Callable[[], dict[str, Any]]) -> Route:
    """`GET /health`; `status` gives `progress` and `phase`."""

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok", "boot": boot, **status()})

    return Route("/health", health, methods=["GET"])


def environment() -> tuple[str, str]:
    """Key and boot id that the server gave this process."""
    key = os.environ.get("HONE_WORKER_KEY", "")
    if not key:
        message = "HONE_WORKER_KEY is not set. The Hone server sets it; set it when you start this by hand."
        raise HoneWorkerError(message, code="no_key", status=500)
    return key, os.environ.get("HONE_BOOT_ID", "")


class Lifeline:
    """Ends the process when its standard input does: then the server that started it is gone.

    Made before anything slow is loaded, so that a worker never outlives its server while it loads.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[], None] = lambda: os._exit(0)
        threading.Thread(target=self._watch, daemon=True, name="hone-stdin").start()

    def _watch(self) -> None:
        try:
            # Unbuffered: a thread that holds the lock of `sys.stdin` would block the interpreter's own end.
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        self.on_end()


def run_service(
    app: ASGIApp, boot: str, *, lifeline: Lifeline | None = None, on_stop: Callable[[], None] | None = None
) -> None:
    """Serves on a free loopback port until SIGTERM or the end of standard input, then ends the process.

    It does not return: threads that compute cannot be interrupted, and must not keep the process alive.
    """
    # Named TCP, or asyncio does not switch Nagle's algorithm off: 20 ms a call.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        # Longer than any client keeps an idle connection, so that it is the client who closes it.
        timeout_keep_alive=120,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)

    def stop() -> None:
        if on_stop is not None:
            on_stop()
        server.should_exit = True
        threading.Thread(target=_end_after_grace, daemon=True, name="hone-grace").start()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        (lifeline or Lifeline()).on_end = stop
        port = listener.getsockname()[1]
        print(json.dumps({"ready": True, "port": port, "boot": boot}), flush=True)
        # Not `server.serve`: it would replace the signal handlers above.
        await server._serve([listener])

    code = 0
    try:
        asyncio.run(serve())
    except BaseException:
        log.exception("the service failed")
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_after_grace() -> None:
    time.sleep(GRACE_SECONDS)
    os._exit(0)
