"""How many threads and parts a step gets: measured once, kept with the data."""

import json
import threading

import pytest
import torch

from hone_worker.base import thread_count
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.train import cores
from hone_worker.train.cores import Cores, best_count, measure_cores, remembered
from hone_worker.worker import parse_arguments


@pytest.mark.parametrize(
    ("milliseconds", "expected", "tried"),
    [
        ({1: 8, 2: 4.5}, 2, [2]),
        ({1: 8, 2: 7}, 1, [2]),
        ({1: 8, 2: 5, 4: 3, 6: 2.8}, 4, [2, 4, 6]),
        # Those after the first that gains nothing are not tried.
        ({1: 8, 2: 20, 4: 2}, 1, [2]),
        ({1: 8}, 1, []),
    ],
)
def test_more_parts_must_gain_clearly(milliseconds, expected, tried):
    asked = []

    def together(count: int) -> float:
        asked.append(count)
        return milliseconds[count]

    assert best_count(milliseconds[1], list(milliseconds)[1:], together) == expected
    assert asked == tried


def test_a_base_whose_part_takes_seconds_is_not_measured_any_further(base, monkeypatch):
    forwards = []
    monkeypatch.setattr(cores, "most_threads", lambda: 8)
    monkeypatch.setattr(cores, "BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(cores, "hidden_states", lambda *_given: forwards.append(1))
    assert cores._measure_parts(base, 1) == 1
    assert len(forwards) == 1


def test_threads_end_where_measuring_fails(base, monkeypatch):
    def fail(*_given) -> None:
        if threading.current_thread().name == "hone-part":
            raise ValueError("of one")

    monkeypatch.setattr(cores, "most_threads", lambda: 2)
    monkeypatch.setattr(cores, "hidden_states", fail)
    others = set(threading.enumerate())
    with pytest.raises(ValueError, match="of one"):
        cores._measure_parts(base, 1)
    for thread in set(threading.enumerate()) - others:
        thread.join(10)
        assert not thread.is_alive()


def test_the_environment_and_the_base_bound_them_and_torch_is_left_as_it_was(base, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert measure_cores(base) == Cores(1, 1)
    for module in (thread_count, cores):
        monkeypatch.setattr(module, "most_threads", lambda: 2)
    before = torch.get_num_threads()
    found = measure_cores(base)
    assert found.train in (1, 2) and found.parts in (1, 2)
    assert torch.get_num_threads() == before
    from train_tiny import tiny_base

    assert measure_cores(tiny_base(ComputePaths(lora="joined"))).parts == 1


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_a_number_of_parts_below_one_is_refused_by_name(count, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--base", "any", "--parts-train", count])
    assert "--parts-train" in capsys.readouterr().err


def test_the_numbers_are_kept_with_the_data(tmp_path):
    path = tmp_path / "threads.json"
    assert remembered(path, "cpu", lambda: Cores(1, 2)) == Cores(1, 2)
    assert remembered(path, "cpu", lambda: Cores(1, 1)) == Cores(1, 2)
    spoilt = [
        "",
        "{",
        "[]",
        '{"train": 0, "parts": 1}',
        '{"train": "2", "parts": 1}',
        '{"train": 2, "parts": 0}',
    ]
    # What earlier versions wrote.
    for text in (*spoilt, '{"train": 2}'):
        path.write_text(text)
        assert remembered(path, "cpu", lambda: Cores(3, 4)) == Cores(3, 4), text
    assert json.loads(path.read_text()) == {"train": 3, "parts": 4, "device": "cpu"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["threads.json"]
    assert remembered(None, "cpu", lambda: Cores(5, 1)) == Cores(5, 1)


def test_the_numbers_of_another_device_are_measured_anew(tmp_path):
    path = tmp_path / "threads.json"
    assert remembered(path, "cpu", lambda: Cores(2, 2)) == Cores(2, 2)
    assert remembered(path, "cuda", lambda: Cores(1, 1)) == Cores(1, 1)
    assert remembered(path, "cuda", lambda: Cores(5, 5)) == Cores(1, 1)
    assert remembered(path, "cpu", lambda: Cores(3, 3)) == Cores(3, 3)
    # Written before the device was kept: of a processor.
    path.write_text('{"train": 2, "parts": 2}')
    assert remembered(path, "cpu", lambda: Cores(1, 1)) == Cores(2, 2)
    assert remembered(path, "cuda", lambda: Cores(1, 1)) == Cores(1, 1)
