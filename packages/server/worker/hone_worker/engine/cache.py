"""Keys and values of the sequences being decoded: one slot a sequence, preallocated, right-padded.

A slot is a row of one tensor per layer. The decoding sequences are kept in the first rows, so that a decode
step attends over a view and copies nothing; behind them lie sequences in prefill, and finished ones that are
kept because the next turn of a conversation begins with them. Keys lie transposed, [slots, heads, dim, places]:
as the matmul of a few queries reads them, which in bfloat16 takes half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache


@dataclass(frozen=True)
class LayerShape:
    heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype


class _Probe(Cache):
    """Passes keys and values through and notes their shapes."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.shapes: dict[int, LayerShape] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        self.shapes[layer_idx] = LayerShape(
            key_states.shape[1], key_states.shape[3], value_states.shape[3], key_states.dtype
        )
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


def probe_shapes(model: Any, device: torch.device) -> list[LayerShape]:
    """The shape of each layer's keys and values, from a forward of one token: exact for every family."""
    probe = _Probe()
    one = torch.zeros(1, 1, dtype=torch.long, device=device)
    mask = torch.zeros(1, 1, 1, 1, dtype=model.get_input_embeddings().weight.dtype, device=device)
    with torch.inference_mode():
        model(input_ids=one, attention_mask=mask, position_ids=one, past_key_values=probe, use_cache=True)
    return [probe.shapes[i] for i in range(len(probe.shapes))]


class SlotCache(Cache):
    """The tensors, and what transformers needs to write into them during a forward.

    Before a forward the caller says where its tokens go: `aim_decode` or `aim_prefill`.
    """

    def __init__(self, shapes: Sequence[LayerShape], device: torch.device, *, spare: int = 0) -> None:
        super().__init__(layers=[])
        self.shapes = list(shapes)
        self.device = device
        #: Rows behind the slots, into which rows that only fill up a step may write.
        self.spare = spare
        #: Counts the times that the tensors were made anew.
        self.generation = 0
        self.slots = 0
        self.capacity = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._rows: Tensor | None = None
        self._decode_rows = 0
        self._positions = torch.zeros(0, dtype=torch.long)
        self._length = 0

    @property
    def bytes_per_token(self) -> int:
        return sum(s.heads * (s.key_dim + s.value_dim) * s.dtype.itemsize for s in self.shapes)

    def resize(self, slots: int, capacity: int, keep: Sequence[tuple[int, int]]) -> None:
        """New tensors; `keep` lists (old row, used length) and gives each the row of its place in the list."""
        for number, shape in enumerate(self.shapes):
            for tensors, places, size in (
                (self._keys, 2, (slots + self.spare, shape.heads, shape.key_dim, capacity)),
                (self._values, 1, (slots + self.spare, shape.heads, capacity, shape.value_dim)),
            ):
                # Zeros, not empty memory: a masked NaN would still spoil its row.
                fresh = torch.zeros(size, dtype=shape.dtype, device=self.device)
                if number == len(tensors):
                    tensors.append(fresh)
                    continue
                for row, (before, length) in enumerate(keep):
                    if length:
                        old = tensors[number][before].narrow(places, 0, length)
                        fresh[row].narrow(places, 0, length).copy_(old)
                # The layer's old tensor goes before the next layer's new one comes.
                tensors[number] = fresh
        self.slots, self.capacity = slots, capacity
        self.generation += 1

    def copy(self, source: int, target: int, length: int) -> None:
        for keys, values in zip(self._keys, self._values, strict=True):
            keys[target, :, :, :length] = keys[source, :, :, :length]
            values[target, :, :length] = values[source, :, :length]

    def copied(self, source: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """A row's first places in tensors of their own, for each layer."""
        return [
            (keys[source, :, :, :length].clone(), values[source, :, :length].clone())
            for keys, values in zip(self._keys, self._values, strict=True)
        ]

    def load(self, target: int, tensors: Sequence[tuple[Tensor, Tensor]], length: int) -> None:
        """The first places of what `copied` gave."""
        for keys, values, (key, value) in zip(self._keys, self._values, tensors, strict=True):
            keys[target, :, :, :length] = key[:, :, :length]
            values[target, :, :length] = value[:, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        pair = torch.tensor([one, other], device=self.device)
        for keys, values in zip(self._keys, self._values, strict=True):
            keys[pair, :, :, :length] = keys[pair.flip(0), :, :, :length]
            values[pair, :, :length] = values[pair.flip(0), :, :length]

    def aim_decode(self, rows: int, positions: Tensor, length: int) -> None:
        """The next forward has one token for each of the first `rows`, and attends over `length` places."""
        self._rows = None
        self._decode_rows = rows
        self._every = torch.arange(rows, device=self.device)
        self._positions = positions
        self._length = length

    def aim_prefill(self, rows: Tensor, positions: Tensor, length: int) -> None:
        """The next forward has `positions` [rows, tokens] of any rows."""
        self._rows = rows
        self._positions = positions
        self._length = length

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        length = self._length
        if self._rows is None:
            keys[self._every, :, :, self._positions] = key_states[:, :, 0]
            values[self._every, :, self._positions] = value_states[:, :, 0]
            live = slice(0, self._decode_rows)
            return keys[live, :, :, :length].transpose(2, 3), values[live, :, :length]
        rows = self._rows
        where = rows.unsqueeze(1)
        keys[where, :, :, self._positions] = key_states.transpose(1, 2)
        values[where, :, self._positions] = value_states.transpose(1, 2)
        return keys[rows, :, :, :length].transpose(2, 3), values[rows, :, :length]

    def write(
        self, layer: int, rows: Tensor, positions: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Token i [heads, dim] goes to a row and a position; gives all that the layer holds, keys transposed."""
        keys, values = self._keys[layer], self._values[layer]
        keys[rows, :, :, positions] = key
        values[rows, :, positions] = value
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0
