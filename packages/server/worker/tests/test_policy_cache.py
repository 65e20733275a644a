"""The policy that stays in memory between operations: the bytes that its files give, and only while they are its."""

import errno
import gc
import shutil
import weakref
from pathlib import Path

import pytest
import train_reference as reference
from test_primitives import forward, sequences, step
from test_train_memory import files, run
from train_tiny import save_policy, trained_adapter

from hone_worker.base.adapter_files import WEIGHTS_FILE, read_adapter
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.checkpoint import OPTIMIZER_FILE
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the folders that were read."""
    seen: list[str] = []

    def noted(folder, model):
        seen.append(Path(folder).name)
        return read_adapter(folder, model)

    monkeypatch.setattr("hone_worker.train.policy_cache.read_adapter", noted)
    return seen


def trained_thrice(base, forest, policy: Path, folder: Path, memory) -> list[dict[str, bytes]]:
    """Each step from the folder of the one before, which is renamed as when the server commits it."""
    made = []
    folder.mkdir()
    for number in (1, 2, 3):
        run(base, forest, policy, folder / "staging", memory(), step=number, seed=number)
        policy = (folder / "staging").rename(folder / str(number))
        made.append(files(policy))
    return made


def test_the_next_step_goes_on_from_memory_to_the_same_bytes(base, policy, forest, tmp_path, reads):
    memory = TrainerMemory(base)
    kept = trained_thrice(base, forest, policy, tmp_path / "kept", lambda: memory)
    assert reads == ["policy"]
    read = trained_thrice(base, forest, policy, tmp_path / "read", lambda: TrainerMemory(base))
    assert reads[1:] == ["policy", "1", "2"]
    assert kept == read and kept[1] != kept[2]


def test_a_loop_of_ones_own_goes_on_from_memory_to_the_same_bytes(base, policy, tmp_path, reads):
    data, made = sequences(policy), []
    shared = TrainerMemory(base)
    for name, memory in (("kept", lambda: shared), ("read", lambda: TrainerMemory(base))):
        at, folder = policy, tmp_path / name
        folder.mkdir()
        for number in (1, 2):
            forward(base, data, at, folder / f"looked{number}", backward=False, memory=memory())
            forward(base, data, at, folder / f"gradient{number}", memory=memory())
            step(base, at, folder / f"gradient{number}", folder / "staging", memory=memory())
            at = (folder / "staging").rename(folder / str(number))
        made.append(files(at))
        if name == "kept":
            assert reads == ["policy"]
    assert len(reads) == 7
    assert made[0] == made[1]


def test_a_folder_whose_files_are_others_is_read(base, policy, forest, tmp_path, reads):
    memory = TrainerMemory(base)

    def both(folder: Path, number: int) -> None:
        before = len(reads)
        for name, given in (("one", memory), ("other", None)):
            run(base, forest, folder, tmp_path / f"{name}{number}", given, step=number)
        assert len(reads) - before == 2
        assert files(tmp_path / f"one{number}") == files(tmp_path / f"other{number}")

    # None of these is in memory: one that was never seen, one whose moments retention has dropped, one restored
    # from a copy, and one with other weights of the same size.
    both(policy, 1)
    one = tmp_path / "one1"
    (one / OPTIMIZER_FILE).unlink()
    both(one, 2)
    shutil.copytree(tmp_path / "one2", tmp_path / "copy")
    both(tmp_path / "copy", 3)
    one = tmp_path / "one3"
    size = (one / WEIGHTS_FILE).stat().st_size
    Path(shutil.copy(policy / WEIGHTS_FILE, tmp_path / "weights")).replace(one / WEIGHTS_FILE)
    assert (one / WEIGHTS_FILE).stat().st_size == size
    both(one, 4)


def test_what_ends_before_an_update_gives_its_policy_back_and_what_ends_after_it_does_not(
    base, policy, forest, tmp_path, reads, monkeypatch
):
    memory = TrainerMemory(base)
    given = reference.config(
        staging=str(tmp_path / "aborted"), checkpoint=str(policy), plan=[[forest.leaves()]]
    )
    data, config = parse_step_data(reference.body(forest, given))
    with pytest.raises(HoneWorkerError, match="aborted"):
        list(train_steps(base, data, config, lambda: True, memory))
    run(base, forest, policy, tmp_path / "one", memory)
    assert reads == ["policy"]

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hone_worker.train.policy_state.write_checkpoint", full)
        with pytest.raises(HoneWorkerError, match="cannot be written"):
            run(base, forest, tmp_path / "one", tmp_path / "full", memory, step=2)
    assert reads == ["policy"]
    run(base, forest, tmp_path / "one", tmp_path / "again", memory, step=2)
    assert reads == ["policy", "one"]
    run(base, forest, tmp_path / "one", tmp_path / "fresh", step=2)
    assert files(tmp_path / "again") == files(tmp_path / "fresh")


def test_two_policies_are_never_in_memory(base, policy, forest, tmp_path, monkeypatch):
    memory = TrainerMemory(base)
    run(base, forest, policy, tmp_path / "one", memory)
    kept = memory.policies.take(tmp_path / "one")
    watched = [weakref.ref(side) for side in kept.weights.parameters()]
    memory.policies.give_back(kept)
    del kept
    alive = []

    def noted(folder, model):
        gc.collect()
        alive.append(sum(side() is not None for side in watched))
        return read_adapter(folder, model)

    monkeypatch.setattr("hone_worker.train.policy_cache.read_adapter", noted)
    other = save_policy(tmp_path / "other", base, trained_adapter(base, seed=8))
    run(base, forest, other, tmp_path / "two", memory)
    assert alive == [0] and len(watched) > 0
