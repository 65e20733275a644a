"""How the worker process begins and ends."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import pytest
from conftest import save_tiny_base
from engine_process import LIMIT, WorkerProcess

from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.service import environment


@pytest.mark.parametrize("how", ["stdin", "sigterm"])
def test_the_process_ends_with_its_server_even_in_mid_stream(tmp_path: Path, how: str) -> None:
    # So many tokens that the stream's own end is minutes away.
    worker = WorkerProcess(save_tiny_base(tmp_path / "long", positions=1 << 16), "--served-name", "tiny")
    body = {
        "model": "tiny",
        "prompt": [10, 20, 30, 40, 50],
        "max_tokens": 60_000,
        "ignore_eos": True,
        "stream": True,
    }
    rest: list[str] = []
    with worker.client.stream("POST", "/v1/completions", json=body) as answer:
        received = answer.iter_lines()
        next(received)
        if how == "stdin":
            assert worker.process.stdin is not None
            worker.process.stdin.close()
        else:
            worker.process.terminate()
        with contextlib.suppress(httpx.RemoteProtocolError):
            rest.extend(received)
    worker.process.wait(LIMIT)
    assert "data: [DONE]" not in rest
    worker.client.close()


def test_no_key_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_WORKER_KEY", raising=False)
    with pytest.raises(HoneWorkerError, match="HONE_WORKER_KEY"):
        environment()
