"""The HTTP side of training, over a real socket with the real compute thread."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable

import httpx
import pytest
import train_reference as reference
import uvicorn
from engine_process import LIMIT
from train_tiny import grown_forest, sample_logprobs, save_policy, tiny_base, trained_adapter

from hone_worker.base.decoder_layers import decoder_layers
from hone_worker.process.compute import Compute
from hone_worker.process.service import create_app
from hone_worker.train import routes as train_routes
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.routes import routes

KEY = "secret"


@pytest.fixture(scope="module")
def service():
    base = tiny_base()
    compute = Compute(train_threads=1)
    compute.start()
    config = uvicorn.Config(
        create_app(routes(base, compute, TrainerMemory(base)), KEY), port=0, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=LIMIT
    ) as client:
        yield base, compute, client, server
    server.should_exit = True
    thread.join(LIMIT)
    compute.stop()
    compute.join(LIMIT)


@pytest.fixture
def case(service, tmp_path):
    base, _, _, _ = service
    policy = save_policy(tmp_path / "policy", base, trained_adapter(base))
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.01)
    leaves = forest.leaves()
    plan = [[[leaf] for leaf in leaves]]
    given = reference.config(staging=str(tmp_path / "staging"), checkpoint=str(policy), plan=plan)
    return forest, given, tmp_path / "staging"


def lines(response: httpx.Response) -> list[dict]:
    return [json.loads(line) for line in response.text.splitlines()]


def wait_for(check: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_operation_streams_its_events_and_its_result(service, case):
    _, _, client, _ = service
    forest, given, staging = case
    response = client.post("/train", content=reference.body(forest, given))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    events = lines(response)
    assert [e["stage"] for e in events if e["event"] == "stage"] == [
        "load",
        "reference_logprobs",
        "forward_backward",
        "optimizer",
        "checkpoint",
    ]
    # The masked rollout and the conversation that is only context have nothing to compute.
    assert len([e for e in events if e["event"] == "microbatch"]) == len(given["plan"][0]) - 2
    assert events[-1]["event"] == "result" and sorted(os.listdir(staging)) == events[-1]["files"]
    assert client.post("/train/op-1/abort").status_code == 404


def test_a_wrong_batch_is_an_error_before_the_stream(service, case):
    _, _, client, _ = service
    forest, given, _ = case
    response = client.post("/train", content=reference.body(forest, {**given, "colour": 1}))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_config" and response.json()["error"]["param"] == "colour"
    assert client.post("/train", content=b"junk").json()["error"]["code"] == "bad_batch"
    assert client.post("/train", content=b"", headers={"Authorization": "Bearer x"}).status_code == 401


def test_an_operation_that_fails_ends_its_stream_with_the_error(service, case):
    _, _, client, _ = service
    forest, given, staging = case
    events = lines(
        client.post("/train", content=reference.body(forest, {**given, "checkpoint": str(staging)}))
    )
    assert events[-1]["event"] == "error"
    assert events[-1]["error"]["code"] == "adapter_not_found"
    assert set(events[-1]["error"]) == {"message", "type", "code"}


@pytest.fixture
def held(service):
    """Keeps the compute thread from its next step, so that an operation can be met in its middle."""
    _, compute, _, _ = service
    release = threading.Event()
    holding = threading.Event()

    def hold():
        holding.set()
        release.wait(LIMIT)

    compute.submit(hold)
    assert holding.wait(LIMIT)
    yield release
    release.set()


def test_another_operation_is_busy_and_a_waiting_one_gives_heartbeats_until_aborted(service, case, held):
    _, compute, client, _ = service
    forest, given, staging = case
    with client.stream("POST", "/train", content=reference.body(forest, given)) as stream:
        received = stream.iter_lines()
        first = json.loads(next(received))
        assert first == {"event": "heartbeat", "progress": compute.progress}
        second = client.post("/train", content=reference.body(forest, {**given, "operation_id": "op-2"}))
        assert second.status_code == 409 and second.json()["error"]["code"] == "busy"
        assert client.post("/train/op-2/abort").status_code == 404
        assert client.post("/train/op-1/abort").status_code == 200
        held.set()
        events = [json.loads(line) for line in received]
    assert events[-1]["error"]["code"] == "aborted"
    assert not any(e["event"] == "microbatch" for e in events)
    assert os.listdir(staging) == []


def test_logprobs_of_sequences_tell_progress_and_let_requests_decode_in_between(service, case, monkeypatch):
    base, compute, client, _ = service
    _, given, _ = case
    sequences = [[3, 1, 4, 1, 5, 9], [2, 7], [1, 8, 2]]
    happened: list[str] = []

    class Decoder:
        def has_work(self) -> bool:
            return 0 < happened.count("computed") < len(sequences)

        def step(self) -> None:
            time.sleep(0.001)
            happened.append("decoded")

    ticks: list[int] = []
    forward = train_routes.prompt_logprobs

    def watched(*args) -> list[float]:
        happened.append("computed")
        before = compute.progress
        found = forward(*args)
        ticks.append(compute.progress - before)
        return found

    monkeypatch.setattr(train_routes, "prompt_logprobs", watched)
    monkeypatch.setattr(compute, "_decoder", Decoder())
    before = compute.progress
    response = client.post("/logprobs", json={"adapter": given["checkpoint"], "sequences": sequences})
    assert response.status_code == 200
    assert [len(one) for one in response.json()["logprobs"]] == [5, 1, 2]
    layers = len(decoder_layers(base.model))
    # Within each forward too, which may take minutes.
    assert ticks == [layers] * 3
    assert compute.progress - before == 3 * (layers + 1)
    first, second, third = (at for at, what in enumerate(happened) if what == "computed")
    assert "decoded" in happened[first:second]
    assert "decoded" in happened[second:third]


def test_a_client_that_goes_away_ends_its_operation(service, case, held):
    _, compute, client, server = service
    forest, given, staging = case
    with client.stream("POST", "/train", content=reference.body(forest, given)) as stream:
        next(stream.iter_lines())
    # The request is over for the server too, which has told the operation so.
    wait_for(lambda: not server.server_state.tasks)
    held.set()
    wait_for(lambda: not compute.training)
    assert os.listdir(staging) == []
    # And the trainer is free for the next one.
    assert lines(client.post("/train", content=reference.body(forest, given)))[-1]["event"] == "result"
