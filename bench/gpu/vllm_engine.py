"""A real vLLM beside the trainer: how long a new policy takes until it has answered, and whether both say the same.

vLLM needs an environment of its own. HONE_VLLM_PYTHON names its Python; without it this Python's own vLLM is taken, and
where there is none the stage says so and leaves its time to the others.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hone_worker.base.adapter_files import write_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.train.forward import logprobs
from transformers import AutoTokenizer

from gpu.shapes import TOKENIZER, Sequence, Work, adapter_of, config_of, make_base
from gpu.stage import Stage, sync
from gpu.steps import micro_batches

SCRIPT = Path(__file__).resolve().parents[2] / "packages/server/worker/hone_vllm.py"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK = 16


def run(stage: Stage) -> None:
    python = vllm_python()
    if python is None:
        stage.tell(kind="not_there", why="there is no vLLM: HONE_VLLM_PYTHON names a Python that has it")
        return
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    # vLLM writes the text of what it samples: each id has to have one.
    size = {"vocab": len(tokenizer)}
    # Without a GPU it has no attention for heads of less than 32.
    config = config_of(stage.shape, **size) if stage.full else config_of(stage.shape, **size, width=32)
    base = make_base(config, stage.device, stage.dtype)
    folder = stage.out / "vllm-base"
    base.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sync()
    began = time.perf_counter()
    with started(stage, python, folder) as engine:
        stage.tell(kind="vllm_start", seconds=time.perf_counter() - began, version=engine.version())
        publishes(stage, base, engine)
        ratio(stage, base, engine)


def vllm_python() -> str | None:
    if named := os.environ.get("HONE_VLLM_PYTHON"):
        return named
    return sys.executable if importlib.util.find_spec("vllm") else None


def publishes(stage: Stage, base: Base, engine: Engine) -> None:
    """Adapters of rank 16, one after another: from the files on disk until the new policy has answered."""
    count = 20 if stage.full else 3
    for number in range(count):
        if stage.left < 5:
            break
        name = f"p{number}"
        place, _weights = written(stage, base, name, seed=number)
        began = time.perf_counter()
        engine.load(name, place)
        engine.completion(name, [1, 2, 3], 1)
        seconds = time.perf_counter() - began
        # The first one is told, and is not among those that the prediction is about: kernels are compiled at it.
        stage.tell(kind="vllm_publish" if number > 0 else "vllm_first_publish", seconds=seconds, rank=RANK)
        engine.unload(name)


def ratio(stage: Stage, base: Base, engine: Engine) -> None:
    """Of tokens that vLLM sampled under a policy with B ≠ 0: the trainer's probability over vLLM's."""
    place, weights = written(stage, base, "trained", seed=99)
    engine.load("trained", place)
    own = weights.to(base.device)
    random = torch.Generator().manual_seed(5)
    ratios: list[float] = []
    apart: list[float] = []
    for _ in range(16 if stage.full else 4):
        prompt = torch.randint(base.vocab_size, (48,), generator=random).tolist()
        ids, told = engine.completion("trained", prompt, 64 if stage.full else 16)
        sequence = Sequence(prompt + ids, [0] * len(prompt) + [1] * len(ids))
        with torch.no_grad():
            (micro_batch,) = micro_batches(Work("one", [[sequence]]), packing="rows", most_tokens=1 << 20)
            expected, _entropy = logprobs(base, own, micro_batch)
        distance = expected.double().cpu() - torch.tensor(told, dtype=torch.float64)
        ratios += distance.exp().tolist()
        apart += distance.abs().tolist()
    mean = sum(ratios) / len(ratios)
    stage.tell(
        kind="vllm_ratio",
        ratio=mean,
        ratio_off=abs(1 - mean),
        mean_apart=sum(apart) / len(apart),
        worst_apart=max(apart),
        tokens=len(ratios),
    )


def written(stage: Stage, base: Base, name: str, seed: int) -> tuple[Path, LoraWeights]:
    place = stage.out / "vllm-adapters" / name
    place.mkdir(parents=True, exist_ok=True)
    weights = adapter_of(base, seed=seed, rank=RANK)
    write_adapter(place, weights, "bench")
    return place, weights


class Engine:
    """vLLM's HTTP, as far as the stage needs it."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"vLLM answered {method} {path} with {response.status}: {text[:500]}")
        return text

    def version(self) -> str:
        return str(json.loads(self._ask("GET", "/version"))["version"])

    def load(self, name: str, place: Path) -> None:
        self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(place.resolve())})

    def unload(self, name: str) -> None:
        self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def completion(self, name: str, prompt: list[int], tokens: int) -> tuple[list[int], list[float]]:
        """Sampled ids and their logprobs."""
        body = {
            "model": name,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 1,
            "seed": 7,
            "logprobs": 0,
            "return_token_ids": True,
            "ignore_eos": True,
        }
        (choice,) = json.loads(self._ask("POST", "/v1/completions", body))["choices"]
        return choice["token_ids"], choice["logprobs"]["token_logprobs"]


@contextmanager
def started(stage: Stage, python: str, folder: Path) -> Iterator[Engine]:
    """vLLM as the server starts it, ready; ended with all that it started."""
    key = secrets.token_urlsafe(16)
    on_card = stage.device == "cuda"
    # The trainer's base is on the card too, and the stages after this one want it free.
    own = ["--gpu-memory-utilization", "0.5"] if on_card else ["--enforce-eager"]
    command = [python, str(SCRIPT), "--model", str(folder), "--served-model-name", "base"]
    command += ["--dtype", str(stage.dtype).removeprefix("torch."), "--max-model-len", "2048"]
    command += ["--enable-lora", "--max-loras", "6", "--max-lora-rank", str(RANK)]
    command += ["--lora-dtype", "auto", "--lora-target-modules", *TARGETS]
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", *own]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HONE_WORKER_KEY": key,
        "HF_HUB_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    log = stage.out / "vllm.log"
    with log.open("w") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
            # Its keeper ends its whole group, which must not be that of the stage.
            start_new_session=True,
        )
    try:
        yield Engine(_port_of(child, log), key)
    finally:
        # It ends when its standard input does; a keeper kills what is left of it.
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _port_of(child: subprocess.Popen[str], log: Path) -> int:
    for line in child.stdout or ():
        told = json.loads(line)
        if told.get("ready"):
            return int(told["port"])
    child.wait()
    raise RuntimeError(f"vLLM did not start. Its last words:\n{log.read_text(errors='replace')[-2000:]}")
