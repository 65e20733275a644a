"""What of vLLM's development mode is open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import hone_vllm

KEY = (b"authorization", b"Bearer key")


async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def status_of(path: str, headers: list[tuple[bytes, bytes]], kind: str = "http") -> int | None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = hone_vllm.SleepRoutes(inner)
    asyncio.run(app({"type": kind, "path": path, "headers": headers}, None, send))
    return sent[0]["status"] if sent else None


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "key")


def test_usual_routes_are_as_vllm_has_them() -> None:
    # vLLM asks for the key of /v1 itself.
    for path in ("/health", "/metrics", "/v1/models", "/v1/completions"):
        assert status_of(path, []) == 200


def test_sleeping_needs_the_key() -> None:
    for path in ("/sleep", "/wake_up", "/is_sleeping"):
        assert status_of(path, [KEY]) == 200
        assert status_of(path, []) == 401
        assert status_of(path, [(b"authorization", b"Bearer other")]) == 401


def test_nothing_else_of_the_development_mode_is_open() -> None:
    for path in (
        "/collective_rpc",
        "/reset_prefix_cache",
        "/server_info",
        "/v1",
        "/sleep/",
        "//v1/models",
        "/",
    ):
        assert status_of(path, [KEY]) == 404
    assert status_of("/v1x", [KEY], "websocket") is None
