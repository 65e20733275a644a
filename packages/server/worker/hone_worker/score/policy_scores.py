"""What policies with a scalar head think of token ids, computed with the trainer's own base weights."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.base.score_head import HEAD_FILE, read_head
from hone_worker.process.errors import HoneWorkerError
from hone_worker.score.beside import beside
from hone_worker.train.forward import hidden_states
from hone_worker.train.policy_cache import own

#: Tokens that are scored at once, padding included, unless a conversation alone has more. Others decode in between,
#: and a CPU takes its time for a base of a billion.
FORWARD_TOKENS = 1024
#: Policies whose weights stay in memory: a run asks one again and again, and few runs go on at once.
MOST_KEPT = 2


@dataclass(frozen=True, eq=False)
class ScoringPolicy:
    weights: LoraWeights
    head: torch.Tensor


class PolicyScorer:
    def __init__(self, base: Base) -> None:
        self.base = base
        self._kept: OrderedDict[str, ScoringPolicy] = OrderedDict()
        self._lock = threading.Lock()

    def policy(self, folder: str) -> ScoringPolicy:
        """That of a folder. A policy's folder never changes, and its name is never used again."""
        with self._lock:
            found = self._kept.get(folder)
            if found is None:
                found = self._read(Path(folder))
                self._kept[folder] = found
                if len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(folder)
            return found

    def _read(self, folder: Path) -> ScoringPolicy:
        read, head = read_adapter(folder, self.base.model), read_head(folder, self.base.model)
        if head is None:
            raise HoneWorkerError(
                f"The policy has no {HEAD_FILE}: it was trained for something else than scores.",
                code="no_head",
                param="policy",
            )
        tensors = {p: (own(self.base, a), own(self.base, b)) for p, (a, b) in sorted(read.tensors.items())}
        return ScoringPolicy(LoraWeights(read.spec, tensors), own(self.base, head))

    def check(self, items: Sequence[Sequence[int]]) -> None:
        for place, ids in enumerate(items):
            if not all(0 <= token < self.base.vocab_size for token in ids):
                message = f"items[{place}] holds a token that the base has not."
                raise HoneWorkerError(message, code="invalid_token_ids", param="items")
            if not 1 <= len(ids) <= self.base.max_model_len:
                message = (
                    f"items[{place}] has {len(ids)} tokens; the base reads 1 to {self.base.max_model_len}."
                )
                raise HoneWorkerError(message, code="context_length_exceeded", param="items")

    def score(self, policy: ScoringPolicy, sequences: Sequence[Sequence[int]]) -> list[float]:
        """What the head says at the last token of each. On the compute thread."""
        return [
            value for rows in beside(sequences, self.base.device) for value in self._forward(policy, rows)
        ]

    def _forward(self, policy: ScoringPolicy, sequences: Sequence[Sequence[int]]) -> list[float]:
        device = self.base.device
        # Causal attention never looks to the right, so the padding needs no mask: any id will do.
        rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sequences], batch_first=True)
        ends = torch.tensor([len(ids) - 1 for ids in sequences], device=device)
        with torch.no_grad():
            hidden = hidden_states(self.base, policy.weights, rows.to(device), None, None)
            last = hidden[torch.arange(len(sequences), device=device), ends]
            values = torch.nn.functional.linear(last.to(policy.head.dtype), policy.head)[:, 0]
        return [float(value) for value in values.tolist()]
