"""How many threads and parts a step gets: measured once, kept with the data."""

import json

import pytest
import torch

from hone_worker.base import thread_count
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.train import cores
from hone_worker.train.cores import Cores, best_count, measure_cores, remembered


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ({1: 8, 2: 4.5}, 2),
        ({1: 8, 2: 7}, 1),
        ({1: 8, 2: 5, 4: 3, 6: 2.8}, 4),
        ({1: 8, 2: 20, 4: 2}, 4),
        ({1: 8}, 1),
    ],
)
def test_more_parts_must_gain_clearly(milliseconds, expected):
    assert best_count(milliseconds) == expected


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


def test_the_numbers_are_kept_with_the_data(tmp_path):
    path = tmp_path / "threads.json"
    assert remembered(path, lambda: Cores(1, 2)) == Cores(1, 2)
    assert remembered(path, lambda: Cores(1, 1)) == Cores(1, 2)
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
        assert remembered(path, lambda: Cores(3, 4)) == Cores(3, 4), text
    assert json.loads(path.read_text()) == {"train": 3, "parts": 4}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["threads.json"]
    assert remembered(None, lambda: Cores(5, 1)) == Cores(5, 1)
