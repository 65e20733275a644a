"""The embedded engine's decoder, driven by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.choice import Choice, Stops, Update
from hone_worker.engine.decode import Decoder
from hone_worker.engine.sampling import SamplingParams

from gpu.stage import sync


def decoder_of(base: Base, decode: str, rows: int, cache_bytes: int) -> tuple[Decoder, list[Update]]:
    updates: list[Update] = []
    return Decoder(base, updates.extend, max_rows=rows, cache_bytes=cache_bytes, decode=decode), updates


def choice_of(
    base: Base,
    prompt: list[int],
    adapter: LoraWeights | None,
    tokens: int,
    seed: int,
    *,
    stream: bool = False,
) -> Choice:
    return Choice(
        index=0,
        prompt=prompt,
        adapter=adapter,
        sampling=SamplingParams(seed=seed),
        stops=Stops(),
        max_tokens=tokens,
        tokenizer=base.tokenizer,
        stream=stream,
    )


def answers(
    base: Base, policies: Sequence[LoraWeights], *, rows: int, prompt: int, tokens: int, decode: str
) -> list[tuple[int, list[int], list[int], list[float]]]:
    """(policy, prompt, sampled ids, their logprobs) of rows that decode together, each of another length."""
    decoder, updates = decoder_of(base, decode, rows, 1 << 30)
    random = torch.Generator().manual_seed(3)
    choices = []
    for row in range(rows):
        ids = torch.randint(base.vocab_size, (prompt + row,), generator=random).tolist()
        choices.append(choice_of(base, ids, policies[row % len(policies)], tokens + row % 3, row))
    decoder.enqueue(choices)
    while decoder.has_work():
        decoder.step()
    told = {id(update.choice): update for update in updates}
    result = []
    for row, choice in enumerate(choices):
        update = told[id(choice)]
        if update.error is not None:
            raise update.error
        result.append((row % len(policies), choice.prompt, update.token_ids, update.logprobs))
    return result


def tokens_per_second(
    base: Base, policy: LoraWeights, *, rows: int, context: int, steps: int, decode: str, cache_bytes: int
) -> tuple[float, float, int]:
    """Tokens a second over all rows once each decodes, the seconds of the fill before, and how many of the measured
    steps were graphs. All rows share a prompt, so that what is measured is decoding."""
    decoder, _updates = decoder_of(base, decode, rows, cache_bytes)
    random = torch.Generator().manual_seed(3)
    shared = torch.randint(base.vocab_size, (context - 1,), generator=random).tolist()
    began = time.perf_counter()
    decoder.enqueue([choice_of(base, [*shared, row], policy, 1 << 20, row) for row in range(rows)])
    while decoder.table.live < rows:
        decoder.step()
    for _ in range(3):
        decoder.step()
    sync()
    filled = time.perf_counter() - began
    graphs = 0 if decoder.graphs is None else decoder.graphs.taken
    before, began = decoder.tokens_decoded, time.perf_counter()
    for _ in range(steps):
        decoder.step()
    sync()
    rate = (decoder.tokens_decoded - before) / (time.perf_counter() - began)
    return rate, filled, 0 if decoder.graphs is None else decoder.graphs.taken - graphs
