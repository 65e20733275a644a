"""Samples for all rows at once, each with its own temperature, filters and random numbers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Below this a temperature means "take the likeliest token".
GREEDY_BELOW = 1e-5
UNIFORMS_AT_ONCE = 32
#: Larger vocabularies are searched in two steps: the block first, then in it.
BLOCK = 256
SEARCH_IN_BLOCKS_ABOVE = 4096


@dataclass(frozen=True)
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW


class Uniforms:
    """The random numbers of one choice: its own generator, drawn some at a time to keep the hot loop short."""

    def __init__(self, seed: int | None, index: int = 0) -> None:
        # The generator is on the CPU whatever computes, so that a seed means the same on every device.
        self._generator = torch.Generator()
        mixed = secrets.randbits(63) if seed is None else (seed + index) % 2**63
        self._generator.manual_seed(mixed)
        self._drawn: list[float] = []

    def next(self) -> float:
        if not self._drawn:
            self._draw()
        return self._drawn.pop()

    def ahead(self, count: int) -> list[float]:
        """The next so many, which `next` still gives afterwards."""
        while len(self._drawn) < count:
            self._draw()
        return self._drawn[: -count - 1 : -1]

    def _draw(self) -> None:
        """The last of the list is the next to give."""
        drawn = torch.rand(UNIFORMS_AT_ONCE, generator=self._generator, dtype=torch.float64)
        self._drawn = drawn.flip(0).tolist() + self._drawn


@dataclass(frozen=True)
class RowSampling:
    """What the live rows ask for, as tensors. Made anew only when a row joins or leaves."""

    temperature: Tensor  # [rows, 1], 1 where greedy
    greedy: Tensor  # [rows] bool
    any_scaled: bool  # whether any temperature is not 1
    all_greedy: bool
    any_greedy: bool
    filtered: Tensor | None  # the rows with top_p or top_k
    top_k: Tensor | None
    top_p: Tensor | None

    @classmethod
    def of(cls, rows: Sequence[SamplingParams], vocab: int, device: torch.device | str) -> RowSampling:
        greedy = [row.greedy for row in rows]
        temperature = [1.0 if row.greedy else row.temperature for row in rows]
        filtered = [
            i for i, row in enumerate(rows) if not row.greedy and (row.top_p < 1 or 0 < row.top_k < vocab)
        ]
        top_k = [rows[i].top_k if 0 < rows[i].top_k < vocab else vocab for i in filtered]
        # A rounded sum can pass 1, and top_p 1 must cut nothing.
        top_p = [rows[i].top_p if rows[i].top_p < 1 else 2.0 for i in filtered]
        return cls(
            temperature=torch.tensor(temperature, device=device).unsqueeze(1),
            greedy=torch.tensor(greedy, device=device),
            any_scaled=any(t != 1.0 for t in temperature),
            all_greedy=all(greedy),
            any_greedy=any(greedy),
            filtered=torch.tensor(filtered, device=device) if filtered else None,
            top_k=torch.tensor(top_k, device=device).unsqueeze(1) if filtered else None,
            top_p=torch.tensor(top_p, device=device).unsqueeze(1) if filtered else None,
        )


def log_distribution(logits: Tensor, rows: RowSampling) -> Tensor:
    """[rows, vocab] log probabilities of what is sampled from: temperature, then top-k, then top-p."""
    scaled = logits.float() / rows.temperature if rows.any_scaled else logits.float()
    if rows.filtered is not None:
        assert rows.top_k is not None and rows.top_p is not None
        # Not in place: these may be the caller's logits.
        cut = _filter(scaled[rows.filtered], rows.top_k, rows.top_p)
        scaled = scaled.index_put((rows.filtered,), cut)
    return torch.log_softmax(scaled, dim=-1)


def _filter(scaled: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    ordered, places = scaled.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ordered.shape[-1], device=ordered.device)
    ordered = ordered.masked_fill(rank >= top_k, float("-inf"))
    probabilities = ordered.softmax(dim=-1)
    # The token that takes the sum past p stays in, so the first always does.
    before = probabilities.cumsum(dim=-1) - probabilities
    ordered = ordered.masked_fill((before >= top_p) & (rank > 0), float("-inf"))
    return torch.full_like(scaled, float("-inf")).scatter(-1, places, ordered)


def _inverse(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The token of each row at which the sum of its weights passes the uniform number's part of their total."""
    rows, vocab = weights.shape
    # Sums in float64: one in float32 over a large vocabulary loses the tail.
    if vocab <= SEARCH_IN_BLOCKS_ABOVE:
        cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
        found = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
        return found.squeeze(1).clamp(max=vocab - 1)
    blocks = F.pad(weights, (0, -vocab % BLOCK)).view(rows, -1, BLOCK)
    sums = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    target = uniforms * sums[:, -1:]
    block = torch.searchsorted(sums, target, right=True).clamp(max=sums.shape[1] - 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block.unsqueeze(2).expand(-1, 1, BLOCK)).squeeze(1)
    cumulative = inside.cumsum(dim=-1, dtype=torch.float64)
    place = torch.searchsorted(cumulative, target - before, right=True)
    # Rounding may leave the target just past the block's end, where no token may be: the last that has a weight.
    last = BLOCK - 1 - (inside > 0).flip(-1).to(torch.uint8).argmax(dim=-1, keepdim=True)
    # Weights that are not finite may lead behind the last block's end.
    return (block * BLOCK + torch.minimum(place, last)).squeeze(1).clamp(max=vocab - 1)


def draw(logits: Tensor, rows: RowSampling, uniforms: Tensor | None, top: int = 0) -> Tensor:
    """[rows, 2 + 2 · top] float64: token, its log probability, and the `top` likeliest of the same distribution.

    One uniform number a row goes through the inverse of the distribution function.
    """
    logs = log_distribution(logits, rows)
    if rows.all_greedy:
        tokens = logits.argmax(dim=-1)
    else:
        assert uniforms is not None
        tokens = _inverse(logs.exp(), uniforms.clamp(max=1 - 2**-40).unsqueeze(1))
        if rows.any_greedy:
            tokens = torch.where(rows.greedy, logits.argmax(dim=-1), tokens)
    chosen = tokens.unsqueeze(1)
    columns = [chosen.double(), logs.gather(1, chosen).double()]
    if top:
        values, ids = logs.topk(min(top, logs.shape[-1]), dim=-1)
        columns += [ids.double(), values.double()]
    return torch.cat(columns, dim=1)


def sample(
    logits: Tensor, rows: RowSampling, uniforms: Tensor | None, top: int = 0
) -> list[tuple[int, float, list[tuple[int, float]]]]:
    """What `draw` gives, per row; it comes back from the device in one transfer."""
    drawn = draw(logits, rows, uniforms, top).tolist()
    if not top:
        return [(int(token), log, []) for token, log in drawn]
    out = []
    for token, log, *rest in drawn:
        half = len(rest) // 2
        likely = [(int(i), v) for i, v in zip(rest[:half], rest[half:], strict=True) if v > float("-inf")]
        out.append((int(token), log, likely))
    return out
