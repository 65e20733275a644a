"""Histories are kept by memory: more conversations than rows prefill what is new, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_engine_decode import Run, agree, prompt_of

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.choice import Choice
from hone_worker.engine.engine import default_cache_bytes
from hone_worker.engine.forward import Forward, ModelForward
from hone_worker.engine.histories import BLOCK, Histories, Reuse
from hone_worker.engine.lean import forward_of

PROMPT, NEW, SAMPLED = 40, 10, 6


def turn(run: Run, histories: list[list[int]], adapter: LoraWeights | None, number: int) -> list[Choice]:
    """A turn of all conversations; each grows by what it sampled and a new message."""
    made = [
        run.add(ids, adapter, max_tokens=SAMPLED, seed=100 * number + i) for i, ids in enumerate(histories)
    ]
    run.finish()
    for i, choice in enumerate(made):
        histories[i] = choice.prompt + run.of(choice).token_ids + prompt_of(NEW, 1000 * number + i)
    return made


@pytest.mark.parametrize("forward", [forward_of, ModelForward])
def test_more_conversations_than_rows_prefill_only_what_is_new(
    tiny_base: Base,
    tiny_folder: Path,
    adapter_folders: list[Path],
    forward: Callable[[Base], Forward],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hone_worker.engine.decode.forward_of", forward)
    adapter = read_adapter(adapter_folders[0], tiny_base.model)
    run = Run(tiny_base, max_rows=4)
    histories = [prompt_of(PROMPT, i) for i in range(18)]
    for number in range(4):
        before = run.decoder.tokens_prefilled
        made = turn(run, histories, adapter, number)
        # Of a later turn: the new message and the last token sampled, less the last one, which is decoded.
        assert run.decoder.tokens_prefilled - before == 18 * (NEW if number else PROMPT - 1)
    for choice in made[::5]:
        agree(tiny_folder, adapter_folders[0], choice, run.of(choice))
    reuse = run.decoder.reuse
    assert reuse.prompt_tokens - reuse.reused_tokens == run.decoder.tokens_prefilled
    assert reuse.evicted == 0
    # Each conversation is kept once, not once for each of its turns.
    assert len(run.decoder.table.histories) + len(run.decoder.table.slots) <= 18 + 4


def test_memory_is_the_limit_and_the_least_recently_used_go(tiny_base: Base, tiny_folder: Path) -> None:
    per_token = Run(tiny_base).decoder.cache.bytes_per_token
    budget = 900 * per_token
    run = Run(tiny_base, max_rows=4, cache_bytes=budget)
    histories = [prompt_of(PROMPT, i) for i in range(18)]
    made: list[Choice] = []
    for number in range(3):
        made = [run.add(ids, max_tokens=SAMPLED, seed=100 * number + i) for i, ids in enumerate(histories)]
        while run.decoder.has_work():
            run.decoder.step()
            assert run.decoder.table.kept_bytes <= budget
        histories = [c.prompt + run.of(c).token_ids + prompt_of(NEW, i) for i, c in enumerate(made)]
    assert run.decoder.reuse.evicted > 0
    for choice in made[::6]:
        agree(tiny_folder, None, choice, run.of(choice))
    # What was used last is there still.
    before = run.decoder.tokens_prefilled
    run.add(histories[-1], max_tokens=1)
    run.finish()
    assert run.decoder.tokens_prefilled - before == NEW


def test_a_prompt_that_many_begin_with_is_copied_from_a_history(tiny_base: Base, tiny_folder: Path) -> None:
    run = Run(tiny_base, max_rows=2)
    shared = prompt_of(64, 1)
    for i in range(6):
        run.add(shared + prompt_of(12, 10 + i), max_tokens=4, seed=i)
        run.finish()
    for i in range(4):  # other work takes the rows
        run.add(prompt_of(50, 50 + i), max_tokens=4)
    run.finish()
    assert len(run.decoder.table.histories) >= 4
    before = run.decoder.tokens_prefilled
    late = run.add(shared + prompt_of(12, 99), max_tokens=4, seed=9)
    run.finish()
    # All of the shared prompt; two ids may agree by chance behind it.
    assert 8 <= run.decoder.tokens_prefilled - before <= 11
    agree(tiny_folder, None, late, run.of(late))


def test_a_policys_histories_are_its_own_and_go_with_it(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path]
) -> None:
    one, two = (read_adapter(folder, tiny_base.model) for folder in adapter_folders)
    run = Run(tiny_base, max_rows=2)
    histories = [prompt_of(PROMPT, i) for i in range(6)]
    turn(run, histories, one, 0)
    again = [list(ids) for ids in histories]
    before = run.decoder.tokens_prefilled
    made = turn(run, again, two, 1)
    assert run.decoder.tokens_prefilled - before == sum(len(c.prompt) - 1 for c in made)
    for choice in made[:2]:
        agree(tiny_folder, adapter_folders[1], choice, run.of(choice))

    table = run.decoder.table
    running = run.add(prompt_of(30, 77), one, max_tokens=30)
    run.decoder.step()
    run.decoder.forget(one)
    run.finish()
    assert len(run.of(running).token_ids) == 30
    assert all(slot.adapter is not one for slot in table.slots)
    assert all(history.adapter is not one for history in table.histories._kept.values())
    before = run.decoder.tokens_prefilled
    made = turn(run, histories, one, 2)
    assert run.decoder.tokens_prefilled - before == sum(len(c.prompt) - 1 for c in made)


def test_equal_hashes_are_not_equal_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone_worker.engine.histories.hash", lambda _: 1, raising=False)
    histories = Histories(Reuse())
    ids = list(range(3 * BLOCK))
    kept = histories.add(ids, None, [])
    other = [ids[0], *range(100, 100 + 2 * BLOCK)]
    assert histories.find(None, other, [1]) == (kept, 1)
    assert histories.find(None, [7, *ids], [1]) == (None, 0)
    histories.remove(kept)
    assert histories.find(None, ids, [1]) == (None, 0)
    assert (histories.tokens, histories._by_block) == (0, {})


def test_the_default_is_a_part_of_the_memory_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(limit: str, available_kb: int) -> int:
        (tmp_path / "limit").write_text(limit + "\n")
        (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available_kb} kB\n")
        none = tmp_path / "none"
        monkeypatch.setattr(
            "hone_worker.base.free_memory.CONTAINERS",
            ((none, none, none), (tmp_path / "limit", none, none)),
        )
        monkeypatch.setattr("hone_worker.base.free_memory.MEMINFO", tmp_path / "meminfo")
        return default_cache_bytes(torch.device("cpu"))

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert chosen("max", total) == total // 4
    assert chosen(str(1 << 62), total) == total // 4
    assert chosen(str(1 << 28), total) == 1 << 26
    assert chosen("max", 1000) == 512_000
