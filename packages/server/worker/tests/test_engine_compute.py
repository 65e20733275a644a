"""The compute thread: training and decoding in turn on one copy of the weights."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_process import LIMIT
from engine_reference import reference_logprobs

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.decoder_layers import decoder_layers
from hone_worker.base.model import Base
from hone_worker.engine.engine import Engine
from hone_worker.engine.sampling import SamplingParams
from hone_worker.process.compute import Compute
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.prompt_logprobs import prompt_logprobs


@pytest.fixture
def compute() -> Iterator[Compute]:
    made = Compute(train_threads=1)
    yield made
    made.stop()
    made.join(LIMIT)


def training(base: Base, folder: Path, steps: int) -> Generator[dict[str, Any], None, None]:
    """Real steps: forward and backward through the shared base, and an optimizer on A and B."""
    weights = read_adapter(folder, base.model).trainable()
    optimizer = torch.optim.AdamW(weights.parameters(), lr=1e-2)
    ids = torch.arange(60).view(2, 30)
    for number in range(steps):
        with base.router.single(weights):
            out = base.model(ids).logits.log_softmax(-1)
        loss = -out[:, :-1].gather(2, ids[:, 1:].unsqueeze(2)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield {"event": "microbatch", "done": number + 1, "loss": float(loss.detach())}


async def collect(engine: Engine, model: str, prompt: list[int], tokens: int, seed: int) -> Any:
    generation = engine.generate(
        model=model,
        prompt=prompt,
        sampling=SamplingParams(seed=seed),
        max_tokens=tokens,
        ignore_eos=True,
    )
    (update,) = [u async for updates in generation.updates() for u in updates]
    return update


def test_decoding_goes_on_during_training_and_neither_disturbs_the_other(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path], compute: Compute
) -> None:
    alone = [e["loss"] for e in training(tiny_base, adapter_folders[0], 12)]
    engine = Engine(tiny_base, compute, cache_bytes=1 << 26)
    compute.start(engine.decoder)
    seen: list[tuple[dict[str, Any], int]] = []
    phases: set[str] = set()

    def on_event(event: dict[str, Any]) -> None:
        phases.add(compute.phase)
        seen.append((event, engine.decoder.tokens_decoded))

    async def run() -> list[Any]:
        await engine.load_adapter("a@1", str(adapter_folders[1]))
        # Nothing begins before all of it is there.
        held = threading.Event()
        compute.submit(lambda: held.wait(LIMIT))
        jobs = [
            asyncio.ensure_future(collect(engine, m, [5, 6, 7 + i], 400, i))
            for i, m in enumerate(("tiny", "a@1"))
        ]
        while engine.decoder.waiting < 2:
            await asyncio.sleep(0.001)
        future = compute.run_training(training(tiny_base, adapter_folders[0], 12), on_event)
        with pytest.raises(HoneWorkerError) as caught:
            compute.run_training(training(tiny_base, adapter_folders[0], 1), on_event)
        assert caught.value.status == 409 and caught.value.code == "busy"
        held.set()
        await asyncio.wrap_future(future)
        return await asyncio.gather(*jobs)

    base, adapted = asyncio.run(run())
    assert [e["loss"] for e, _ in seen] == pytest.approx(alone, abs=1e-6)
    assert alone[-1] < alone[0] - 0.1
    # Tokens came between the first and the last micro-batch.
    assert seen[-1][1] > seen[0][1] and phases == {"training"}
    for update, folder in ((base, None), (adapted, adapter_folders[1])):
        expected = reference_logprobs(tiny_folder, folder, update.choice.prompt, update.token_ids)
        assert (expected - torch.tensor(update.logprobs)).abs().max() <= 1e-3


def test_a_training_error_reaches_its_owner_and_the_thread_goes_on(compute: Compute) -> None:
    compute.start()
    closed = threading.Event()

    def broken() -> Generator[dict[str, Any], None, None]:
        try:
            yield {"event": "stage"}
            raise ValueError("no")
        finally:
            closed.set()

    seen: list[Any] = []
    with pytest.raises(ValueError, match="no"):
        compute.run_training(broken(), seen.append).result(LIMIT)
    assert seen == [{"event": "stage"}] and closed.is_set() and not compute.training
    assert compute.submit(lambda: threading.current_thread().name).result(LIMIT) == "hone-compute"
    with pytest.raises(ZeroDivisionError):
        compute.submit(lambda: 1 / 0).result(LIMIT)


def test_progress_counts_and_the_phase_returns_to_idle(compute: Compute) -> None:
    assert compute.phase == "starting"
    compute.start()

    def three() -> Generator[dict[str, Any], None, None]:
        yield from ({"n": i} for i in range(3))

    compute.run_training(three(), lambda _event: None).result(LIMIT)
    # The fourth step is the one that finds the end.
    assert compute.progress == 4
    for _ in range(100 * LIMIT):
        if compute.phase == "idle":
            return
        threading.Event().wait(0.01)
    raise AssertionError(compute.phase)


def test_what_is_left_at_the_end_is_told(compute: Compute) -> None:
    compute.start()
    entered, release = threading.Event(), threading.Event()

    def endless() -> Generator[dict[str, Any], None, None]:
        while True:
            entered.set()
            release.wait(LIMIT)
            yield {"event": "microbatch"}

    future = compute.run_training(endless(), lambda _event: None)
    assert entered.wait(LIMIT)
    compute.stop()
    release.set()
    with pytest.raises(HoneWorkerError) as caught:
        future.result(LIMIT)
    assert caught.value.status == 503
    with pytest.raises(HoneWorkerError):
        compute.submit(lambda: None).result(LIMIT)


def test_calls_that_come_many_at_once_take_turns_with_the_decoder(compute: Compute) -> None:
    class Endless:
        steps = 0

        def has_work(self) -> bool:
            return True

        def step(self) -> None:
            self.steps += 1

    decoder = Endless()
    held = threading.Event()
    first = compute.submit(lambda: held.wait(LIMIT))
    seen = [compute.submit(lambda: decoder.steps) for _ in range(4)]
    compute.start(decoder)
    held.set()
    assert first.result(LIMIT)
    steps = [one.result(LIMIT) for one in seen]
    assert steps == sorted(set(steps))


def test_calls_have_the_same_threads_whatever_ran_before_them() -> None:
    decoding: list[int] = []

    class Once:
        def has_work(self) -> bool:
            return not decoding

        def step(self) -> None:
            decoding.append(torch.get_num_threads())

    before = torch.get_num_threads()
    compute = Compute(decode_threads=1, train_threads=2)
    first = compute.submit(torch.get_num_threads)
    compute.start(Once())
    try:
        assert first.result(LIMIT) == 2
        assert compute.submit(torch.get_num_threads).result(LIMIT) == 2
    finally:
        compute.stop()
        compute.join(LIMIT)
        # Of the process, too: threads that do not set theirs would have it.
        torch.set_num_threads(before)
    assert decoding == [1]


def test_a_forward_that_scores_tells_how_far_it_is(tiny_base: Base, compute: Compute) -> None:
    engine = Engine(tiny_base, compute, cache_bytes=1 << 24, scorer=prompt_logprobs)
    compute.start(engine.decoder)
    before = compute.progress
    found = asyncio.run(engine.score("tiny", [5, 6, 7, 8]))
    assert len(found) == 3
    assert compute.progress - before > len(decoder_layers(tiny_base.model)) > 0
    assert all(not layer._forward_hooks for layer in decoder_layers(tiny_base.model))
