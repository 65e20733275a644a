"""One step of the decoder through the model: which tokens go where, and the general way to compute them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hone_worker.base.lora import AdapterStack, LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.cache import SlotCache
from hone_worker.engine.spans import Span

KEPT_STACKS = 4


@dataclass
class Step:
    """The last token of each of the first `live` rows, and a piece of some prompts, all on the device."""

    cache: SlotCache
    live: int
    ids: Tensor  # [live]
    positions: Tensor  # [live]
    adapters: list[LoraWeights | None]  # of the live rows
    spans: list[Span]  # the live rows, by how many places they attend over
    piece_rows: list[int]  # of the cache
    piece_counts: list[int]  # tokens of each, without the padding
    piece_length: int  # how many places the pieces attend over
    piece_ids: Tensor  # [rows, width], padded on the right
    piece_positions: Tensor  # [rows, width]
    piece_adapters: list[LoraWeights | None]

    @property
    def length(self) -> int:
        """How many places the live rows attend over, at most."""
        return max((span.length for span in self.spans), default=0)


class Forward(Protocol):
    def run(self, step: Step) -> Tensor | None:
        """Writes keys and values of all tokens; gives the logits [live, vocab], None where nothing is live."""
        ...

    def forget(self) -> None:
        """Drops what is kept of adapters."""
        ...


def distinct(adapters: Sequence[LoraWeights | None]) -> tuple[tuple[LoraWeights, ...], list[int]]:
    """The adapters in one order whatever the order of the rows, and each row's place in it; −1 for none."""
    found = sorted({id(a): a for a in adapters if a is not None}.items())
    place = {number: i for i, (number, _) in enumerate(found)}
    return tuple(a for _, a in found), [-1 if a is None else place[id(a)] for a in adapters]


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask would be turned into this one in every layer."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))


class ModelForward:
    """transformers' own forward, for every family: one call for the pieces, one for the live rows."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._body = base.model.get_decoder()
        self._stacks: dict[tuple[int, ...], AdapterStack] = {}

    def forget(self) -> None:
        self._stacks.clear()

    def run(self, step: Step) -> Tensor | None:
        if step.piece_rows:
            self._prefill(step)
        return self._decode(step) if step.live else None

    def _prefill(self, step: Step) -> None:
        device = self.base.device
        positions = step.piece_positions
        seen = torch.arange(step.piece_length, device=device) <= positions.unsqueeze(-1)
        step.cache.aim_prefill(torch.tensor(step.piece_rows, device=device), positions, step.piece_length)
        with self.base.router.rows(*self._stack(step.piece_adapters)):
            # The body only: the last token of a prompt goes through a decode step, so no logits here.
            self._body(
                input_ids=step.piece_ids,
                attention_mask=additive(seen, self.base.dtype).unsqueeze(1),
                position_ids=positions,
                past_key_values=step.cache,
                use_cache=True,
            )

    def _decode(self, step: Step) -> Tensor:
        seen = torch.arange(step.length, device=self.base.device) <= step.positions.unsqueeze(1)
        step.cache.aim_decode(step.live, step.positions, step.length)
        with self.base.router.rows(*self._stack(step.adapters)):
            out: Tensor = self.base.model(
                input_ids=step.ids.unsqueeze(1),
                attention_mask=additive(seen, self.base.dtype)[:, None, None, :],
                position_ids=step.positions.unsqueeze(1),
                past_key_values=step.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return out

    def _stack(self, adapters: Sequence[LoraWeights | None]) -> tuple[AdapterStack | None, Tensor]:
        members, places = distinct(adapters)
        index = torch.tensor(places).to(self.base.device)
        if not members:
            return None, index
        # A stack holds its adapters, so their ids cannot be given to others while it is kept.
        key = tuple(id(a) for a in members)
        stack = self._stacks.pop(key, None) or AdapterStack(members, self.base.device)
        self._stacks[key] = stack
        while len(self._stacks) > KEPT_STACKS:
            self._stacks.pop(next(iter(self._stacks)))
        return stack, index
