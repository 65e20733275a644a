"""The worker process over HTTP: the engine's contract."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.torch
import torch
from engine_process import KEY, LIMIT, WorkerProcess
from engine_reference import reference_logits, reference_logprobs

PROMPT = [10, 20, 30, 40, 50]


@pytest.fixture(scope="module")
def worker(tiny_folder: Path, adapter_folders: list[Path]) -> Iterator[WorkerProcess]:
    process = WorkerProcess(tiny_folder, "--served-name", "tiny", "--max-model-len", "256")
    for number, folder in enumerate(adapter_folders):
        body = {"lora_name": f"a@{number + 1}", "lora_path": str(folder)}
        assert process.client.post("/v1/load_lora_adapter", json=body).status_code == 200
    yield process
    process.end()


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    return error


def events(worker: WorkerProcess, **body: Any) -> list[dict[str, Any]]:
    full = {"prompt": PROMPT, "logprobs": 0, "return_token_ids": True, "stream": True, **body}
    lines: list[str] = []
    with worker.client.stream("POST", "/v1/completions", json=full) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def wait_for(check: Any) -> None:
    end = time.monotonic() + LIMIT
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def metric(worker: WorkerProcess, name: str) -> int:
    text = worker.client.get("/metrics").text
    (line,) = [x for x in text.splitlines() if x.startswith(f"vllm:{name}{{")]
    return int(line.split()[-1])


def running(worker: WorkerProcess) -> int:
    return metric(worker, "num_requests_running") + metric(worker, "num_requests_waiting")


def test_ready_line_health_and_models(worker: WorkerProcess, adapter_folders: list[Path]) -> None:
    assert worker.ready["boot"] == "boot-1" and worker.ready["ready"] is True
    health = worker.client.get("/health").json()
    assert health["status"] == "ok" and health["boot"] == "boot-1" and health["phase"] == "idle"
    worker.complete("tiny", PROMPT)
    assert worker.client.get("/health").json()["progress"] > health["progress"]
    cards = {card["id"]: card for card in worker.client.get("/v1/models").json()["data"]}
    assert cards["tiny"]["parent"] is None and cards["tiny"]["max_model_len"] == 256
    assert cards["a@1"]["parent"] == "tiny" and cards["a@1"]["root"] == str(adapter_folders[0])


def test_a_completion_has_the_contracts_shape(worker: WorkerProcess, tiny_folder: Path) -> None:
    answer = worker.complete("tiny", PROMPT, max_tokens=12, seed=1, temperature=0.7)
    assert answer["object"] == "text_completion" and answer["model"] == "tiny"
    (choice,) = answer["choices"]
    ids = choice["token_ids"]
    assert choice["finish_reason"] in ("length", "stop") and choice["prompt_token_ids"] == PROMPT
    assert len(choice["logprobs"]["token_logprobs"]) == len(choice["logprobs"]["tokens"]) == len(ids)
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": len(ids),
        "total_tokens": 5 + len(ids),
    }
    expected = reference_logprobs(tiny_folder, None, PROMPT, ids, 0.7)
    assert torch.allclose(expected, torch.tensor(choice["logprobs"]["token_logprobs"]), atol=1e-5)


def test_many_at_once_over_three_policies(
    worker: WorkerProcess, tiny_folder: Path, adapter_folders: list[Path]
) -> None:
    folders = {"tiny": None, "a@1": adapter_folders[0], "a@2": adapter_folders[1]}

    def one(i: int) -> tuple[str, list[int], dict[str, Any]]:
        model = list(folders)[i % 3]
        prompt = [(7 * i + j) % 256 for j in range(3 + 5 * i)]
        return model, prompt, worker.complete(model, prompt, max_tokens=10 + i, seed=i)["choices"][0]

    with ThreadPoolExecutor(12) as pool:
        for model, prompt, choice in pool.map(one, range(12)):
            expected = reference_logprobs(tiny_folder, folders[model], prompt, choice["token_ids"])
            difference = (expected - torch.tensor(choice["logprobs"]["token_logprobs"])).abs()
            assert difference.mean() <= 1e-5 and difference.max() <= 1e-3


def test_temperature_zero_is_argmax(worker: WorkerProcess, tiny_folder: Path) -> None:
    choice = worker.complete("tiny", PROMPT, max_tokens=8, temperature=0)["choices"][0]
    logits = reference_logits(tiny_folder, None, PROMPT, choice["token_ids"])
    assert logits.argmax(-1).tolist() == choice["token_ids"]
    expected = logits.log_softmax(-1).max(-1).values
    assert torch.allclose(expected, torch.tensor(choice["logprobs"]["token_logprobs"]), atol=1e-5)


def test_filters_renormalise(worker: WorkerProcess, tiny_folder: Path) -> None:
    choice = worker.complete("tiny", PROMPT, max_tokens=30, seed=4, top_k=3, top_p=0.9)["choices"][0]
    logits = reference_logits(tiny_folder, None, PROMPT, choice["token_ids"])
    for row, token, logprob in zip(
        logits, choice["token_ids"], choice["logprobs"]["token_logprobs"], strict=True
    ):
        values, places = row.softmax(-1).topk(3)
        kept = (values / values.sum()).cumsum(0) - values / values.sum() < 0.9
        assert token in places[kept].tolist()
        expected = row[token].exp() / row[places[kept]].exp().sum()
        assert float(expected.log()) == pytest.approx(logprob, abs=1e-5)


def test_seeds_repeat_and_n_choices_differ(worker: WorkerProcess) -> None:
    def ids(**body: Any) -> list[list[int]]:
        # Nothing but the number of its tokens ends a choice: two that end at once would be alike.
        answer = worker.complete("a@1", PROMPT, max_tokens=15, ignore_eos=True, **body)
        return [c["token_ids"] for c in sorted(answer["choices"], key=lambda c: c["index"])]

    assert ids(seed=5, n=4) == ids(seed=5, n=4)
    assert len({tuple(x) for x in ids(n=4)}) == 4
    assert ids(seed=5, n=4)[0] == ids(seed=5)[0]


def test_stop_token_ids_end_it_and_are_included(worker: WorkerProcess) -> None:
    free = worker.complete("tiny", PROMPT, max_tokens=20, seed=2)["choices"][0]
    stop = free["token_ids"][6]
    first = free["token_ids"].index(stop)
    choice = worker.complete("tiny", PROMPT, max_tokens=20, seed=2, stop_token_ids=[stop])["choices"][0]
    assert choice["token_ids"] == free["token_ids"][: first + 1]
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] == stop


def test_the_bases_own_end_token_ends_it(worker: WorkerProcess) -> None:
    from conftest import tiny_tokenizer

    end = tiny_tokenizer().eos_token_id
    for seed in range(40):
        choice = worker.complete("tiny", PROMPT, max_tokens=200, seed=seed, temperature=3)["choices"][0]
        if choice["finish_reason"] == "stop":
            assert choice["token_ids"][-1] == end and choice["stop_reason"] is None
            assert "<|end|>" not in choice["text"]
            again = worker.complete("tiny", PROMPT, max_tokens=200, seed=seed, temperature=3, ignore_eos=True)
            assert again["choices"][0]["token_ids"][: len(choice["token_ids"])] == choice["token_ids"]
            assert len(again["choices"][0]["token_ids"]) == 200
            return
    raise AssertionError("no sample met the end token")


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_cut_the_text_but_not_the_ids(worker: WorkerProcess, stream: bool) -> None:
    options = {"max_tokens": 60, "seed": 3, "model": "tiny"}
    free = "".join(c["text"] for e in events(worker, **options) for c in e["choices"])
    ascii_pairs = [free[i : i + 2] for i in range(3, len(free) - 1) if free[i : i + 2].isascii()]
    stop = ascii_pairs[0]
    if stream:
        chunks = [c for e in events(worker, **options, stop=[stop, "never there"]) for c in e["choices"]]
        text = "".join(c["text"] for c in chunks)
        ids = [t for c in chunks for t in c["token_ids"]]
        last = chunks[-1]
    else:
        last = worker.complete("tiny", PROMPT, max_tokens=60, seed=3, stop=stop)["choices"][0]
        text, ids = last["text"], last["token_ids"]
    assert text == free[: free.index(stop)]
    assert last["finish_reason"] == "stop" and last["stop_reason"] == stop
    assert len(ids) > 0
    from conftest import tiny_tokenizer

    assert stop in tiny_tokenizer().decode(ids, skip_special_tokens=True)


def test_a_stream_says_what_the_whole_answer_says(worker: WorkerProcess) -> None:
    options = {"model": "a@2", "max_tokens": 25, "seed": 8, "n": 2}
    whole = worker.complete(prompt=PROMPT, **options)
    chunks = events(worker, **options, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    for index in (0, 1):
        mine = [c for e in chunks for c in e["choices"] if c["index"] == index]
        expected = whole["choices"][index]
        assert len(mine) > 3
        assert "".join(c["text"] for c in mine) == expected["text"]
        assert [t for c in mine for t in c["token_ids"]] == expected["token_ids"]
        assert [v for c in mine for v in c["logprobs"]["token_logprobs"]] == pytest.approx(
            expected["logprobs"]["token_logprobs"], abs=1e-5
        )
        assert [c["finish_reason"] for c in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1]["finish_reason"] == expected["finish_reason"]
        assert mine[0]["prompt_token_ids"] == PROMPT and mine[1]["prompt_token_ids"] is None


def test_top_logprobs(worker: WorkerProcess) -> None:
    choice = worker.complete("tiny", PROMPT, max_tokens=3, temperature=0, logprobs=2)["choices"][0]
    for token, logprob, top in zip(
        choice["logprobs"]["tokens"],
        choice["logprobs"]["token_logprobs"],
        choice["logprobs"]["top_logprobs"],
        strict=True,
    ):
        assert max(top.values()) == pytest.approx(logprob) and token in top
    by_id = worker.complete(
        "tiny", PROMPT, max_tokens=3, temperature=0, logprobs=2, return_tokens_as_token_ids=True
    )["choices"][0]
    assert by_id["logprobs"]["tokens"] == [f"token_id:{i}" for i in choice["token_ids"]]
    assert [list(top.values()) for top in by_id["logprobs"]["top_logprobs"]] == [
        pytest.approx(list(top.values())) for top in choice["logprobs"]["top_logprobs"]
    ]
    assert all(key.startswith("token_id:") for top in by_id["logprobs"]["top_logprobs"] for key in top)


def leave(worker: WorkerProcess, body: dict[str, Any]) -> int:
    """Sends a request, closes the connection in the middle of it, and says how many tokens were made."""
    before = metric(worker, "generation_tokens_total")
    content = json.dumps(body)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", worker.ready["port"])) as connection:
        connection.sendall((head + content).encode())
        if body["stream"]:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        wait_for(lambda: metric(worker, "generation_tokens_total") > before)
    wait_for(lambda: running(worker) == 0)
    return metric(worker, "generation_tokens_total") - before


@pytest.mark.parametrize("stream", [False, True])
def test_closing_the_connection_ends_the_generation(worker: WorkerProcess, stream: bool) -> None:
    body = {
        "model": "tiny",
        "prompt": PROMPT,
        "max_tokens": 250,
        "ignore_eos": True,
        "stream": stream,
        "n": 64,
    }
    for _attempt in range(20):
        # Where this process was so late that all was made before, that shows nothing.
        made = leave(worker, body)
        if made < 64 * 250:
            return
    raise AssertionError("it went on to its end")


def test_an_adapter_unloaded_in_flight_serves_its_requests_to_the_end(
    worker: WorkerProcess, tiny_folder: Path, adapter_folders: list[Path]
) -> None:
    load = {"lora_name": "short@1", "lora_path": str(adapter_folders[0])}
    assert worker.client.post("/v1/load_lora_adapter", json=load).status_code == 200
    body = {
        "model": "short@1", "prompt": PROMPT, "max_tokens": 200, "stream": True, "logprobs": 0,
        "return_token_ids": True, "ignore_eos": True, "seed": 1,
    }  # fmt: skip
    ids: list[int] = []
    logprobs: list[float] = []
    with worker.client.stream("POST", "/v1/completions", json=body) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            choice = json.loads(line[6:])["choices"][0]
            if not ids:
                gone = worker.client.post("/v1/unload_lora_adapter", json={"lora_name": "short@1"})
                assert gone.status_code == 200
            ids += choice["token_ids"]
            logprobs += choice["logprobs"]["token_logprobs"]
    assert len(ids) == 200
    expected = reference_logprobs(tiny_folder, adapter_folders[0], PROMPT, ids)
    assert (expected - torch.tensor(logprobs)).abs().max() <= 1e-3
    body["stream"] = False
    assert error_of(worker.client.post("/v1/completions", json=body), 404)["param"] == "model"
    # The name may come back only as a new load; the very same request then works again.
    assert worker.client.post("/v1/unload_lora_adapter", json={"lora_name": "short@1"}).status_code == 404


def test_refusals(worker: WorkerProcess) -> None:
    def post(**body: Any) -> httpx.Response:
        return worker.client.post("/v1/completions", json={"model": "tiny", "prompt": PROMPT, **body})

    assert error_of(post(model="nobody"), 404)["code"] == "model_not_found"
    assert error_of(post(prompt=[1] * 256), 400)["code"] == "context_length_exceeded"
    last = worker.complete("tiny", [1] * 255, max_tokens=50)
    assert len(last["choices"][0]["token_ids"]) == 1
    assert error_of(post(prompt=[]), 400)["param"] == "prompt"
    assert error_of(post(prompt=[264]), 400)["param"] == "prompt"
    assert error_of(post(prompt="text"), 400)["param"] == "prompt"
    assert error_of(post(temperature=-1), 400)["param"] == "temperature"
    assert error_of(post(top_p=0), 400)["param"] == "top_p"
    neutral = {"top_k": 0, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
    assert post(**neutral).status_code == 200
    for name in ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert error_of(post(**{name: 0.5}), 400)["param"] == name
    assert error_of(post(n=0), 400)["param"] == "n"
    assert error_of(worker.client.post("/v1/completions", content=b"{"), 400)["code"] == "invalid_request"
    assert error_of(worker.client.get("/nothing"), 404)["code"] == "route_not_found"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        bare = httpx.get(f"{worker.client.base_url}/health", headers=headers, timeout=LIMIT)
        assert error_of(bare, 401)["code"] == "invalid_api_key"


def test_adapters_that_are_refused(
    worker: WorkerProcess, adapter_folders: list[Path], tmp_path: Path
) -> None:
    def load(name: str, folder: Path) -> httpx.Response:
        body = {"lora_name": name, "lora_path": str(folder)}
        return worker.client.post("/v1/load_lora_adapter", json=body)

    assert error_of(load("a@1", adapter_folders[0]), 400)["code"] == "adapter_exists"
    assert error_of(load("tiny", adapter_folders[0]), 400)["code"] == "adapter_exists"
    assert error_of(load("x@1", tmp_path / "none"), 404)["code"] == "adapter_not_found"
    config = (adapter_folders[0] / "adapter_config.json").read_text()
    weights = (adapter_folders[0] / "adapter_model.safetensors").read_bytes()
    tensors = safetensors.torch.load(weights)
    name = next(iter(tensors))

    def spoilt(case: str, *, change: dict[str, Any] | None = None, data: bytes = weights) -> Path:
        folder = tmp_path / case
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({**json.loads(config), **(change or {})}))
        (folder / "adapter_model.safetensors").write_bytes(data)
        return folder

    nan = {**tensors, name: torch.full_like(tensors[name], float("nan"))}
    cases = [
        spoilt("rank", change={"r": 5}),
        spoilt("dora", change={"use_dora": True}),
        spoilt("target", change={"target_modules": ["q_proj", "nothing"]}),
        spoilt("nan", data=safetensors.torch.save(nan)),
        spoilt("cut", data=weights[:-10]),
        spoilt("pickle", data=b"\x80\x04 not safetensors"),
        spoilt("shape", data=safetensors.torch.save({**tensors, name: tensors[name][:, :-1].contiguous()})),
        spoilt("missing", data=safetensors.torch.save({k: v for k, v in tensors.items() if k != name})),
    ]
    for folder in cases:
        assert error_of(load("x@1", folder), 400)["code"] == "bad_adapter", folder.name
    assert load("x@1", spoilt("fine")).status_code == 200
    assert worker.client.post("/v1/unload_lora_adapter", json={"lora_name": "x@1"}).status_code == 200


def test_a_fresh_adapter_is_the_base_and_repeats(worker: WorkerProcess, tmp_path: Path) -> None:
    def make(name: str, seed: int) -> Path:
        body = {"staging": str(tmp_path / name), "lora": {"r": 3, "alpha": 6}, "seed": seed}
        answer = worker.client.post("/adapters", json=body)
        assert answer.status_code == 200, answer.text
        assert sorted(answer.json()["files"]) == ["adapter_config.json", "adapter_model.safetensors"]
        return tmp_path / name

    one, two, other = make("one", 1), make("two", 1), make("other", 2)
    file = "adapter_model.safetensors"
    assert (one / file).read_bytes() == (two / file).read_bytes() != (other / file).read_bytes()
    body = {"lora_name": "fresh@0", "lora_path": str(one)}
    assert worker.client.post("/v1/load_lora_adapter", json=body).status_code == 200
    fresh = worker.complete("fresh@0", PROMPT, max_tokens=10, seed=1)["choices"][0]
    base = worker.complete("tiny", PROMPT, max_tokens=10, seed=1)["choices"][0]
    # To rounding: the base's prompt may have been kept from an earlier request.
    assert fresh["token_ids"] == base["token_ids"]
    logprobs = [answer["logprobs"]["token_logprobs"] for answer in (fresh, base)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-5)
    bad = {
        "staging": str(tmp_path / "x"),
        "lora": {"r": 3, "alpha": 6, "target_modules": ["none"]},
        "seed": 1,
    }
    assert error_of(worker.client.post("/adapters", json=bad), 400)["param"] == "lora.target_modules"
