"""The number of threads: the smallest that is clearly not too few."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hone_worker.base import thread_count
from hone_worker.base.model import Base
from hone_worker.base.thread_count import fastest, measured, most_threads


@pytest.mark.parametrize(
    ("milliseconds", "most", "expected"),
    [
        ({1: 8, 2: 4}, 2, 2),
        ({1: 8, 2: 7.5}, 2, 1),
        ({1: 8, 2: 30}, 2, 1),
        ({1: 16, 2: 8, 4: 4, 6: 3.9}, 6, 4),
        # Far slower with two: four are not tried.
        ({1: 4, 2: 20}, 4, 1),
    ],
)
def test_more_threads_must_gain_clearly(
    milliseconds: dict[int, float], most: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, seconds = 1, 0.0

    def use(count: int) -> None:
        nonlocal threads
        threads = count

    def work() -> None:
        nonlocal seconds
        seconds += milliseconds[threads] / 1000

    clock = SimpleNamespace(monotonic=lambda: seconds, perf_counter=lambda: seconds)
    monkeypatch.setattr(thread_count, "time", clock)
    assert fastest(work, most, use) == expected


def test_the_environment_bounds_them_and_torch_is_left_as_it_was(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert most_threads() == 1
    assert measured(tiny_base, 1, 1) == 1
    monkeypatch.setattr(thread_count, "most_threads", lambda: 2)
    before = torch.get_num_threads()
    assert measured(tiny_base, 8, 1) in (1, 2)
    assert torch.get_num_threads() == before
