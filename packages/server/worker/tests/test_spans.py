"""Live rows of very different lengths: how they are cut into spans, and that the cut changes no answer."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest
from test_engine_decode import Run, agree, prompt_of

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.model import Base
from hone_worker.engine import decode
from hone_worker.engine import spans as module
from hone_worker.engine.lean import LeanForward
from hone_worker.engine.spans import PLACES_A_SPAN, Span, spans


def cost(cut: list[Span]) -> int:
    return sum((s.end - s.start) * s.length + PLACES_A_SPAN for s in cut)


def every_cut(lengths: list[int]) -> list[list[Span]]:
    inner = range(1, len(lengths))
    return [
        [Span(a, b, max(lengths[a:b])) for a, b in zip((0, *at), (*at, len(lengths)), strict=True)]
        for count in range(len(lengths))
        for at in combinations(inner, count)
    ]


def test_no_cut_reads_fewer_places() -> None:
    draw = random.Random(5)
    for _ in range(60):
        lengths = [int(10 ** draw.uniform(1, 4)) for _ in range(draw.randint(1, 8))]
        found = spans(lengths)
        assert [s.start for s in found] == [0, *(s.end for s in found[:-1])] and found[-1].end == len(lengths)
        assert cost(found) == min(cost(cut) for cut in every_cut(lengths))


def test_rows_of_similar_length_stay_together() -> None:
    assert spans([]) == []
    assert spans([100, 130, 90] * 5) == [Span(0, 15, 130)]
    assert spans([100] * 7 + [7000] + [100] * 8) == [Span(0, 7, 100), Span(7, 8, 7000), Span(8, 16, 100)]


def test_the_cut_changes_no_answer(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACES_A_SPAN", 8)
    cuts: list[int] = []

    def noted(lengths: list[int]) -> list[Span]:
        found = spans(lengths)
        cuts.append(len(found))
        return found

    monkeypatch.setattr(decode, "spans", noted)
    run = Run(tiny_base)
    weights = [None, *(read_adapter(folder, tiny_base.model) for folder in adapter_folders)]
    folders = [None, *adapter_folders]
    choices = [
        run.add(prompt_of(length, i), weights[i % 3], max_tokens=6 + 5 * i, seed=i)
        for i, length in enumerate((5, 110, 7, 9, 60, 6))
    ]
    run.finish()
    assert isinstance(run.decoder._forward, LeanForward) and max(cuts) > 2
    for i, choice in enumerate(choices):
        agree(tiny_folder, folders[i % 3], choice, run.of(choice))
