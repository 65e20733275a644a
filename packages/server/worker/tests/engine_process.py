"""A worker process for tests: the real thing, on a free port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

KEY = "test-key"
#: Seconds after which something hangs: a busy machine is many times slower than an idle one.
LIMIT = 300
PACKAGE = Path(__file__).parent.parent


class WorkerProcess:
    def __init__(self, base: Path, *options: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(PACKAGE),
            "HONE_WORKER_KEY": KEY,
            "HONE_BOOT_ID": "boot-1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "hone_worker.worker", "--base", str(base), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker ended with {self.process.wait(LIMIT)}"
        self.ready: dict[str, Any] = json.loads(line)
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.ready['port']}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=LIMIT,
        )

    def complete(self, model: str, prompt: list[int], **body: Any) -> dict[str, Any]:
        full = {"model": model, "prompt": prompt, "logprobs": 0, "return_token_ids": True, **body}
        answer = self.client.post("/v1/completions", json=full)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(LIMIT)
