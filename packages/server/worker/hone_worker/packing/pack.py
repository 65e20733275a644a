"""Sequences that begin alike, packed into one row: what they share goes through the model once.

The row holds prefix trees, one after another. Sharing is found by token ids alone, so it does not matter
whether two sequences share a prompt, a rollout's history or the same sampled answer: equal ids after equal
ids give equal hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

Ids = np.ndarray


@dataclass(frozen=True, eq=False)
class TreeLayout:
    """Which tokens of a packed row see which: the whole tree mask as two short lists of ranges.

    A tree is laid out chain by chain: a chain goes down from a node to a leaf, and is followed by the trees
    that leave it, those that leave it last first. So all that hangs below a prefix of a chain is one range.
    """

    #: [low, high): each token sees those of the span up to itself.
    spans: list[tuple[int, int]]
    #: (q_low, q_high, k_low, k_high): each query sees all the keys.
    blocks: list[tuple[int, int, int, int]]
    #: [low, high) of each tree; nothing outside it is seen from within.
    trees: list[tuple[int, int]]

    def mask(self, low: int, high: int, device: torch.device | str = "cpu") -> Tensor:
        """The tree [low, high) as a matrix: true where the row's token sees the column's."""
        seen = torch.zeros(high - low, high - low, dtype=torch.bool)
        for start, end in self.spans:
            if low <= start < high:
                one = seen[start - low : end - low, start - low : end - low]
                one.copy_(torch.ones_like(one).tril())
        for q_low, q_high, k_low, k_high in self.blocks:
            if low <= q_low < high:
                seen[q_low - low : q_high - low, k_low - low : k_high - low] = True
        return seen.to(device)


@dataclass(frozen=True, eq=False)
class PackedRow:
    input_ids: Tensor  # int64 [N]
    position_ids: Tensor  # int64 [N]: depth in the tree
    layout: TreeLayout
    places: list[Tensor]  # per sequence, int64: where each of its tokens lies in the row


@dataclass(eq=False)
class _Node:
    ids: Ids
    children: dict[int, _Node] = field(default_factory=dict)  # by first token
    sequences: int = 1  # that go through it
    at: int = -1  # where its first token lies in the row


def pack(sequences: Sequence[Ids]) -> PackedRow:
    """The order of the sequences decides the order of the row, and so the last bits of every sum over it."""
    roots: dict[int, _Node] = {}
    for ids in sequences:
        _insert(roots, ids)
    row = _Row()
    for root in roots.values():
        start = row.length
        row.add(root, depth=0)
        row.layout.trees.append((start, row.length))
    return PackedRow(
        torch.from_numpy(np.concatenate(row.ids).astype(np.int64)),
        torch.cat(row.positions),
        row.layout,
        [_places(roots, ids) for ids in sequences],
    )


def _insert(roots: dict[int, _Node], ids: Ids) -> None:
    children, at = roots, 0
    while at < len(ids):
        node = children.get(int(ids[at]))
        if node is None:
            children[int(ids[at])] = _Node(ids[at:])
            return
        same = _common(node.ids, ids[at:])
        at += same
        if same < len(node.ids) and at < len(ids):
            below = _Node(node.ids[same:], node.children, node.sequences)
            node.ids, node.children = node.ids[:same], {int(below.ids[0]): below}
        node.sequences += 1
        children = node.children


def _common(one: Ids, other: Ids) -> int:
    size = min(len(one), len(other))
    differs = one[:size] != other[:size]
    return int(differs.argmax()) if differs.any() else size


def _places(roots: dict[int, _Node], ids: Ids) -> Tensor:
    children, at, parts = roots, 0, []
    while at < len(ids):
        node = children[int(ids[at])]
        size = min(len(node.ids), len(ids) - at)
        parts.append(torch.arange(node.at, node.at + size))
        at += size
        children = node.children
    return torch.cat(parts)


class _Row:
    """The row as it grows."""

    def __init__(self) -> None:
        self.length = 0
        self.ids: list[Ids] = []
        self.positions: list[Tensor] = []
        self.layout = TreeLayout([], [], [])

    def add(self, head: _Node, depth: int) -> None:
        """The tree below `head`. It calls itself only for lighter branches: never deeper than log2(sequences)."""
        chain = [head]
        while chain[-1].children:
            chain.append(_heaviest(chain[-1]))
        start = self.length
        for node in chain:
            node.at = self.length
            self.ids.append(node.ids)
            self.length += len(node.ids)
        self.layout.spans.append((start, self.length))
        self.positions.append(torch.arange(depth, depth + self.length - start))
        for node in reversed(chain[:-1]):
            heaviest, end, first = _heaviest(node), node.at + len(node.ids), self.length
            for child in node.children.values():
                if child is not heaviest:
                    self.add(child, depth + end - start)
            if self.length > first:
                self.layout.blocks.append((first, self.length, start, end))


def _heaviest(node: _Node) -> _Node:
    # `max` gives the first of equals.
    return max(node.children.values(), key=lambda child: child.sequences)
