"""A decode step over tensors that keep their place: rows filled up to a power of two, sampling inside, one result.

Everything that a step needs lies in these tensors, and a step leaves in them what the next one needs: the sampled
tokens are its ids, the positions have moved on. So a step can be recorded once (graphs.py) and run again and again
with nothing sent to the device. Only when rows join or leave, and when the random numbers sent ahead run out, the
tensors are loaded again, in two transfers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from hone_worker.base.model import Base
from hone_worker.engine.cache import SlotCache
from hone_worker.engine.forward import additive, distinct
from hone_worker.engine.joined import Pair
from hone_worker.engine.lean import Attend, LeanForward, LeanStack
from hone_worker.engine.sampling import RowSampling, draw
from hone_worker.engine.slots import Slot

log = logging.getLogger("hone_worker")

#: Steps for which random numbers are sent ahead.
STEPS_AHEAD = 32
#: Rows of `_whole`, which holds what is a whole number.
ID, POSITION, ADVANCE, ROW, PLACE, GREEDY, TOP_K, TICK = range(8)
#: Rows of `_real`: these, then the random numbers of each step to come.
TEMPERATURE, TOP_P = range(2)


@cache
def kernels_for(
    heads: int, key_heads: int, dim: int, device: torch.device, dtype: torch.dtype
) -> Callable[..., Tensor] | None:
    """Triton's kernels for such heads, once they were tried; None where matmuls over the longest row have to do."""
    if device.type != "cuda" or dim < 16 or dim & (dim - 1) or find_spec("triton") is None:
        return None
    try:
        from hone_worker.engine.split_kv import fault, split_kv

        wrong = fault(heads, key_heads, dim, device, dtype)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong is None:
        return split_kv
    log.warning("Triton's kernels for decoding are not used here: %s", wrong)
    return None


@dataclass(frozen=True)
class StepShape:
    """All that the course of a step depends on beside the contents of its tensors."""

    rows: int  # live ones and those that fill up
    length: int  # places that a row may attend over
    ranks: int  # of all adapters side by side, filled up to a power of two; 0: the bare base
    gated: bool  # whether rows have different adapters
    filtered: bool  # whether any row has top_p or top_k


class StaticAdapters:
    """Adapters of some ranks in tensors that keep their place, whichever policies they are."""

    def __init__(self, forward: LeanForward, base: Base, ranks: int) -> None:
        self._stack: LeanStack | None = None
        self.pairs: list[tuple[Pair, ...]] = []
        self._parts: list[list[tuple[Tensor, Tensor]]] = []
        for layer in forward.layers:
            pairs, parts = [], []
            for joined in (layer.qkv, layer.out, layer.gate_up, layer.down):
                outer, inner = joined.shape
                count = len(joined.layers)
                a, b = (
                    torch.zeros(count, ranks, size, dtype=base.dtype, device=base.device)
                    for size in (inner, outer)
                )
                parts.append((a, b))
                pairs.append((a.view(count * ranks, inner).t(), b.view(count * ranks, outer)))
            self._parts.append(parts)
            self.pairs.append(tuple(pairs))

    def load(self, stack: LeanStack) -> None:
        if stack is self._stack:
            return
        ranks = stack.table.shape[1]
        for parts, pairs in zip(self._parts, stack.pairs, strict=True):
            for (a, b), pair in zip(parts, pairs, strict=True):
                # What lies beyond these ranks meets gates of 0, or a row of B that is 0.
                a.zero_()
                b.zero_()
                if pair is not None:
                    of_a, of_b = pair
                    a[:, :ranks].copy_(of_a.t().reshape(len(a), ranks, -1))
                    b[:, :ranks].copy_(of_b.view(len(b), ranks, -1))
        self._stack = stack


class StaticStep:
    """One shape's tensors, and the step over them."""

    def __init__(
        self,
        base: Base,
        forward: LeanForward,
        cache: SlotCache,
        shape: StepShape,
        adapters: StaticAdapters | None,
    ) -> None:
        self.base = base
        self.forward = forward
        self.cache = cache
        self.shape = shape
        self.adapters = adapters
        device, rows = base.device, shape.rows
        pinned = device.type == "cuda"
        self._whole_host = torch.zeros(8, rows, dtype=torch.int64, pin_memory=pinned)
        self._real_host = torch.zeros(2 + STEPS_AHEAD, rows, dtype=torch.float64, pin_memory=pinned)
        self._result_host = torch.zeros(rows, 2, dtype=torch.float64, pin_memory=pinned)
        self._whole = self._whole_host.to(device, copy=True)
        self._real = self._real_host.to(device, copy=True)
        self._result = self._result_host.to(device, copy=True)
        self.ids, self.positions, self.rows = (self._whole[row] for row in (ID, POSITION, ROW))
        self._tick = self._whole[TICK, :1]
        self._gate = torch.zeros(rows, shape.ranks, dtype=base.dtype, device=device)
        self._every = torch.arange(rows, device=device) if shape.filtered else None
        self.pairs: Sequence[Sequence[Pair | None]] = forward.no_pairs if adapters is None else adapters.pairs
        self.gates: list[Tensor | None] = [None] * 4
        self.left = 0
        heads = (forward.query_heads, forward.key_heads, forward.dim)
        self._split_kv = kernels_for(*heads, device, base.dtype)
        # The upload must have been read before the host's side of it is written again.
        self._sent = torch.cuda.Event() if pinned else None
        self._done = torch.cuda.Event() if pinned else None
        self._write([])

    def load(self, live: Sequence[Slot]) -> None:
        """The rows as they are now."""
        members, places = distinct([slot.adapter for slot in live])
        if self._sent is not None:
            self._sent.synchronize()
        self._write(live, places)
        if self.adapters is not None:
            stack = self.forward.stack(members)
            self.adapters.load(stack)
            self._gate.zero_()
            self._gate[:, : stack.table.shape[1]].copy_(stack.table[self._whole[PLACE]])
        self.left = STEPS_AHEAD

    def _write(self, live: Sequence[Slot], places: Sequence[int] = ()) -> None:
        rows, vocabulary = self.shape.rows, self.base.vocab_size
        fill = rows - len(live)
        asked = [slot.choice.sampling for slot in live if slot.choice is not None]
        # Eagerly no filter touches a greedy row.
        top_k = [s.top_k if not s.greedy and 0 < s.top_k < vocabulary else vocabulary for s in asked]
        whole = [
            [slot.ids[-1] for slot in live] + [0] * fill,
            [slot.length for slot in live] + [0] * fill,
            [1] * len(live) + [0] * fill,
            # Rows that fill up write their keys behind the slots.
            [*range(len(live))] + [self.cache.slots] * fill,
            [*places] + [-1] * fill,
            [int(s.greedy) for s in asked] + [1] * fill,
            top_k + [vocabulary] * fill,
            [0] * rows,
        ]
        noise = [
            [0.0] * STEPS_AHEAD
            if slot.choice is None or slot.choice.sampling.greedy
            else slot.choice.uniforms.ahead(STEPS_AHEAD)
            for slot in live
        ]
        real = [
            [1.0 if s.greedy else s.temperature for s in asked] + [1.0] * fill,
            # A rounded sum can pass 1, and top_p 1 must cut nothing.
            [s.top_p if s.top_p < 1 and not s.greedy else 2.0 for s in asked] + [2.0] * fill,
        ]
        self._whole_host.copy_(torch.tensor(whole, dtype=torch.int64))
        self._real_host[:2].copy_(torch.tensor(real, dtype=torch.float64))
        self._real_host[2:].zero_()
        if noise:
            self._real_host[2:, : len(live)].copy_(torch.tensor(noise, dtype=torch.float64).t())
        self._whole.copy_(self._whole_host, non_blocking=True)
        self._real.copy_(self._real_host, non_blocking=True)
        if self._sent is not None:
            self._sent.record()

    def compute(self) -> None:
        """The step. Reads and writes tensors of the device alone, so that it can be recorded."""
        if self.shape.gated:
            self.gates = [None] + [self._gate.repeat(1, count) for count in (1, 2, 3)]
        logits = self.forward.decode(self)
        noise = self._real[2:].index_select(0, self._tick)[0]
        sampling = RowSampling(
            temperature=self._real[TEMPERATURE].float().unsqueeze(1),
            greedy=self._whole[GREEDY].bool(),
            any_scaled=True,
            all_greedy=False,
            any_greedy=True,
            filtered=self._every,
            top_k=self._whole[TOP_K].unsqueeze(1),
            top_p=self._real[TOP_P].float().unsqueeze(1),
        )
        self._result.copy_(draw(logits, sampling, noise))
        self.ids.copy_(self._result[:, 0])
        self.positions.add_(self._whole[ADVANCE])
        self._tick.add_(1)

    def read(self, count: int) -> list[list[float]]:
        """Token and log probability of the first rows: the one transfer back, and the one wait."""
        self._result_host.copy_(self._result, non_blocking=True)
        if self._done is not None:
            self._done.record()
            self._done.synchronize()
        self.left -= 1
        found: list[list[float]] = self._result_host[:count].tolist()
        return found

    def attention(self, dtype: torch.dtype, key_heads: int) -> Attend:
        split_kv = self._split_kv
        length, rows, positions = self.shape.length, self.rows, self.positions
        if split_kv is not None:
            return lambda query, keys, values, scale: split_kv(
                query, keys, values, rows, positions, length, scale
            )
        seen = torch.arange(length, device=self.base.device) <= positions.unsqueeze(1)
        mask = additive(seen, dtype).repeat_interleave(key_heads, 0).unsqueeze(1)

        def attend(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
            # As LeanForward does for rows that follow one another; what fills up reads rows that are not its own.
            count, heads, dim = query.shape
            live = slice(0, count * key_heads)
            beside = query.reshape(count * key_heads, -1, dim)
            keys, values = keys.flatten(0, 1)[live, :, :length], values.flatten(0, 1)[live, :length]
            scores = torch.baddbmm(mask, beside, keys, alpha=scale)
            weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
            return torch.bmm(weights, values).view(count, heads, dim)

        return attend
