"""Parts of a step at the same time: the same bytes whichever of them went side by side, and the gradient of the whole."""

import threading
import time

import pytest
import torch
from test_parts import chains
from test_primitives import LOSSES, forward, sequences
from test_train_memory import files, room_for, run
from train_tiny import (
    grown_forest,
    last_gradient,
    relative_difference,
    sample_logprobs,
    tiny_base,
    trained_adapter,
)

from hone_worker.base.compute_paths import ComputePaths
from hone_worker.train import fit, operation, parts
from hone_worker.train.memory import TrainerMemory, measure
from hone_worker.train.side_by_side import SideBySide, can_be_side_by_side


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART_TOKENS", 20)


@pytest.fixture
def forest(policy):
    return chains(policy)


def two(base, **options) -> TrainerMemory:
    return TrainerMemory(base, side_by_side=SideBySide(2), **options)


def test_results_come_in_order_and_each_thread_is_one_of_torchs():
    before = torch.get_num_threads()
    meeting = threading.Barrier(2)

    def call(number: int):
        meeting.wait(10)  # both are there at the same time
        return number, torch.get_num_threads(), threading.current_thread().name

    abreast = SideBySide(2)
    for _ in range(3):
        found = abreast.run([lambda n=n: call(n) for n in range(2)])
        assert [(n, threads) for n, threads, _ in found] == [(0, 1), (1, 1)]
        assert {name for *_, name in found} == {"hone-part"}
    assert torch.get_num_threads() == before
    threads = [t for t in threading.enumerate() if t.name == "hone-part"]
    abreast.end()
    for thread in threads:
        thread.join(10)
    assert not any(t.is_alive() for t in threads)


def test_what_the_caller_sets_between_two_runs_reaches_no_thread_of_a_part():
    before = torch.get_num_threads()
    meeting = threading.Barrier(3)

    def call() -> int:
        meeting.wait(10)  # on a thread each, also on those that had nothing to do before
        return torch.get_num_threads()

    abreast = SideBySide(3)
    abreast.run([torch.get_num_threads])
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
        assert abreast.run([call] * 3) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
        abreast.end()


def test_the_first_error_is_raised_once_all_are_over():
    over = threading.Event()

    def late() -> None:
        over.wait(0.05)
        over.set()

    def fail(message: str) -> None:
        raise ValueError(message)

    with pytest.raises(ValueError, match="first"):
        SideBySide(3).run([lambda: fail("first"), lambda: fail("second"), late])
    assert over.is_set()


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gradient_is_that_of_the_whole_and_redone_it_has_the_same_bytes(
    base, policy, forest, tmp_path, monkeypatch, steps
):
    """With two optimizer steps the pass for old logprobs goes side by side as well."""
    leaves = forest.leaves()
    given = {"plan": [[leaves]] if steps == 1 else [[leaves[:4]], [leaves[4:]]]}
    most: list[int] = []
    abreast = SideBySide.run

    def counted(self, calls):
        most.append(len(calls))
        return abreast(self, calls)

    monkeypatch.setattr(SideBySide, "run", counted)
    for name in ("one", "again"):
        told = run(base, forest, policy, tmp_path / name, two(base), **given)
    assert max(most) == 2 and len([e for e in told if e["event"] == "microbatch"]) > 2
    assert files(tmp_path / "one") == files(tmp_path / "again")

    monkeypatch.setattr(parts, "PART_TOKENS", 10_000)
    whole = run(base, forest, policy, tmp_path / "whole", **given)
    ours, theirs = (last_gradient(tmp_path / name, 0.9) for name in ("one", "whole"))
    assert relative_difference(ours, theirs) < 1e-5
    for key in ("loss", "train_tokens", "model_tokens", "entropy", "kl"):
        assert told[-1]["metrics"][key] == pytest.approx(whole[-1]["metrics"][key], rel=1e-5, abs=1e-9), key


def test_what_has_no_room_beside_others_goes_alone_with_the_same_bytes(
    base, policy, forest, tmp_path, monkeypatch
):
    plan = [[forest.leaves()]]
    run(base, forest, policy, tmp_path / "abreast", two(base), plan=plan)
    # Found out on the way: the backward of one of them fails once.
    with room_for(base, 10, times=1) as struck:
        told = run(base, forest, policy, tmp_path / "struck", two(base), plan=plan)
    assert struck and not [e for e in told if e["event"] in ("split", "warning")]
    # Known before.
    largest = max(e["tokens"] for e in told if e["event"] == "microbatch")
    kept = measure(base, trained_adapter(base).trainable())
    monkeypatch.setattr(TrainerMemory, "budget", lambda _self: kept.of(largest, False) + 1)
    run(base, forest, policy, tmp_path / "alone", two(base), plan=plan)
    again = run(base, forest, policy, tmp_path / "recomputed", two(base, recompute="on"), plan=plan)
    assert again[-1]["metrics"]["recomputed_micro_batches"] > 1
    for name in ("struck", "alone", "recomputed"):
        assert files(tmp_path / name) == files(tmp_path / "abreast"), name


def test_a_large_part_has_all_threads_whatever_room_there_is(base, policy, tmp_path, monkeypatch):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.3)
    kept = measure(base, trained_adapter(base).trainable())
    went: dict[int, set[str]] = {}
    through = operation.logprobs

    def noted(base, weights, micro_batch, **options):
        went.setdefault(micro_batch.tokens, set()).add(threading.current_thread().name)
        return through(base, weights, micro_batch, **options)

    monkeypatch.setattr(operation, "logprobs", noted)
    # A pass for a reference's logprobs is in it.
    given = {"plan": [[forest.leaves()]], "loss": {"type": "grpo", "beta": 0.1}}
    run(base, forest, policy, tmp_path / "small", two(base), **given)
    sizes = sorted(went)
    assert len(sizes) > 1 and all(names == {"hone-part"} for names in went.values())

    monkeypatch.setattr(fit, "_LARGE", (sizes[-1] - 1) / parts.PART_TOKENS)
    # With one thread of its own it has none to gain.
    run(base, forest, policy, tmp_path / "one", two(base), **given)
    assert all(names == {"hone-part"} for names in went.values())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name, room in (("abreast", 10**10), ("alone", kept.of(sizes[-1], False) + 1)):
            monkeypatch.setattr(TrainerMemory, "budget", lambda _self: room)  # noqa: B023
            went.clear()
            run(base, forest, policy, tmp_path / name, two(base), **given)
            assert went.pop(sizes[-1]) == {threading.current_thread().name}
            assert went and all(names == {"hone-part"} for names in went.values())
    finally:
        torch.set_num_threads(before)
    assert files(tmp_path / "abreast") == files(tmp_path / "alone")


def test_a_look_goes_beside_others_only_where_there_is_room(base, policy, forest, tmp_path, monkeypatch):
    together: list[int] = []
    through = fit.Fit._together

    def noted(self, several, compute):
        together.append(len(several))
        return through(self, several, compute)

    monkeypatch.setattr(fit.Fit, "_together", noted)
    plan = [[forest.leaves()]]
    for name, room, expected in (("free", 10**9, True), ("full", 1, False)):
        monkeypatch.setattr(TrainerMemory, "budget", lambda _self: room)  # noqa: B023
        together.clear()
        run(base, forest, policy, tmp_path / name, two(base), plan=plan, evaluate=True)
        assert bool(together) is expected


def test_a_part_that_must_be_parted_leaves_the_bytes_of_the_plan_that_says_so(base, policy, forest, tmp_path):
    plan = [[forest.leaves()]]
    with room_for(base, 10, times=2):
        halved = run(base, forest, policy, tmp_path / "halved", two(base), plan=plan)
    told = [e for e in halved if e["event"] == "split"]
    redone = [forest.leaves()]
    for event in told:
        gone = {leaf for part in event["into"] for leaf in part}
        at = next(i for i, m in enumerate(redone) if gone <= set(m))
        cut = redone[at].index(event["into"][0][0])
        before, after = redone[at][:cut], [leaf for leaf in redone[at][cut:] if leaf not in gone]
        redone[at : at + 1] = [part for part in (before, *event["into"], after) if part]
    run(base, forest, policy, tmp_path / "redone", two(base), plan=[redone])
    assert files(tmp_path / "redone") == files(tmp_path / "halved")


@pytest.mark.parametrize("loss", LOSSES[:2], ids=lambda loss: loss["type"])
@pytest.mark.parametrize("backward", [True, False])
def test_primitives_go_side_by_side_too(base, policy, tmp_path, loss, backward):
    data = sequences(policy) * 4
    alone = forward(base, data, policy, tmp_path / "alone", loss, backward=backward)
    for name in ("abreast", "again"):
        found = forward(base, data, policy, tmp_path / name, loss, memory=two(base), backward=backward)
    assert files(tmp_path / "abreast") == files(tmp_path / "again")
    assert found["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=1e-5)
    for ours, theirs in zip(found["logprobs"], alone["logprobs"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_loss_is_never_asked_by_two_threads(base, policy, forest, tmp_path, monkeypatch):
    busy = threading.Lock()
    threads = set()
    found = operation.objective_of

    class Watched:
        def __init__(self, objective):
            self._objective = objective

        def __getattr__(self, name):
            return getattr(self._objective, name)

        def loss(self, *given):
            assert busy.acquire(blocking=False)
            threads.add(threading.current_thread().name)
            try:
                time.sleep(0.02)  # the other one comes meanwhile
                return self._objective.loss(*given)
            finally:
                busy.release()

    monkeypatch.setattr(operation, "objective_of", lambda config: Watched(found(config)))
    run(base, forest, policy, tmp_path / "s", two(base), plan=[[forest.leaves()]])
    assert threads == {"hone-part"}


def test_each_thread_has_a_route_of_its_own(base):
    weights = trained_adapter(base)
    here, there = threading.Event(), threading.Event()

    def routed() -> object:
        with base.router.single(weights):
            here.set()
            assert there.wait(10)
            return base.router.trained

    def look() -> object:
        assert here.wait(10)
        with base.router.single(None):
            found = base.router.trained
        there.set()
        return found

    assert SideBySide(2).run([routed, look]) == [weights, None]
    assert base.router.trained is None


def test_ways_that_keep_something_between_layers_go_one_at_a_time():
    assert can_be_side_by_side(tiny_base())
    assert not can_be_side_by_side(tiny_base(ComputePaths(lora="joined")))
    # Their frequencies are replaced in each forward.
    for kind, expected in (("llama3", True), ("dynamic", False), ("longrope", False)):
        base = tiny_base()
        base.model.config.rope_parameters = {"rope_type": kind, "rope_theta": 1e4}
        assert can_be_side_by_side(base) is expected
        base.model.config.rope_parameters = {"full_attention": {"rope_type": kind, "rope_theta": 1e4}}
        assert can_be_side_by_side(base) is expected
