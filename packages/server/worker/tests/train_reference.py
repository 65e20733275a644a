"""The training maths once more, in plain Python floats, one token at a time, and batches to try it on.

Written from the formulas, not from the code: no tensors, no tree, no chunks. What the trainer computes is
compared with this.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import torch
from safetensors.torch import save


@dataclass
class Completion:
    suffix: list[int]
    sampled: list[int]
    rollout: int
    parent: int = -1
    temperature: float = 1.0
    policy: int = 0
    trainable: int = 1
    truncated: int = 0
    cut: int = 0
    logprobs: list[float] | None = None


@dataclass
class Forest:
    """Step data being written: completions and rollouts, by hand."""

    completions: list[Completion] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    trainable: list[int] = field(default_factory=list)
    reference: list[float] | None = None  # one a token

    def rollout(self, reward: float, group: int, trainable: int = 1) -> int:
        self.rewards.append(reward)
        self.groups.append(group)
        self.trainable.append(trainable)
        return len(self.rewards) - 1

    def add(self, completion: Completion) -> int:
        self.completions.append(completion)
        return len(self.completions) - 1

    def path(self, index: int) -> list[int]:
        above = self.completions[index].parent
        return ([] if above < 0 else self.path(above)) + [index]

    def sequence(self, index: int) -> list[int]:
        return [token for c in self.path(index) for token in self.completions[c].suffix]

    def leaves(self) -> list[int]:
        parents = {c.parent for c in self.completions}
        return [i for i in range(len(self.completions)) if i not in parents]

    def tensors(self) -> dict[str, torch.Tensor]:
        cs = self.completions
        offsets = [0]
        for c in cs:
            assert len(c.suffix) == len(c.sampled)
            offsets.append(offsets[-1] + len(c.suffix))
        logprobs = [x for c in cs for x in (c.logprobs or [0.0] * len(c.suffix))]
        given = {} if self.reference is None else {"reference": torch.tensor(self.reference)}
        return {
            **given,
            "tokens": torch.tensor([t for c in cs for t in c.suffix], dtype=torch.int32),
            "sampled": torch.tensor([s for c in cs for s in c.sampled], dtype=torch.uint8),
            "logprobs": torch.tensor(logprobs, dtype=torch.float32),
            "completion_offsets": torch.tensor(offsets, dtype=torch.int64),
            "completion_parent": torch.tensor([c.parent for c in cs], dtype=torch.int32),
            "completion_rollout": torch.tensor([c.rollout for c in cs], dtype=torch.int32),
            "completion_temperature": torch.tensor([c.temperature for c in cs], dtype=torch.float32),
            "completion_policy": torch.tensor([c.policy for c in cs], dtype=torch.int32),
            "completion_trainable": torch.tensor([c.trainable for c in cs], dtype=torch.uint8),
            "completion_truncated": torch.tensor([c.truncated for c in cs], dtype=torch.uint8),
            "completion_cut": torch.tensor([c.cut for c in cs], dtype=torch.uint8),
            "rollout_reward": torch.tensor(self.rewards, dtype=torch.float64),
            "rollout_group": torch.tensor(self.groups, dtype=torch.int32),
            "rollout_trainable": torch.tensor(self.trainable, dtype=torch.uint8),
        }


def config(**changes) -> dict:
    base = {
        "operation_id": "op-1",
        "model": "m",
        "step": 1,
        "staging": "staging",
        "checkpoint": "checkpoint",
        "lora": {"r": 4, "alpha": 8.0},
        "optimizer": {"learning_rate": 0.01},
        "loss": {},
        "plan": [],
        "max_mismatch": 1e9,
        "seed": 0,
    }
    return {**base, **changes}


def body(forest: Forest, options: dict) -> bytes:
    return save(forest.tensors(), metadata={"config": json.dumps(options)})


def advantages(rewards: list[float], groups: list[int], scale: str) -> list[float]:
    result = []
    for reward, group in zip(rewards, groups, strict=True):
        members = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        if all(r == members[0] for r in members):
            result.append(0.0)
            continue
        mean = math.fsum(members) / len(members)
        a = reward - mean
        if scale == "group":
            a /= math.sqrt(math.fsum((r - mean) ** 2 for r in members) / (len(members) - 1)) + 1e-4
        result.append(a)
    return result


def token_loss(
    now: float, start: float, sampler: float, a: float, low: float, high: float, cap: float
) -> float:
    weight = min(math.exp(start - sampler), cap)
    rho = math.exp(now - start)
    clipped = max(1 - low, min(rho, 1 + high))
    return -weight * min(rho * a, clipped * a)


def token_slope(
    now: float, start: float, sampler: float, a: float, low: float, high: float, cap: float
) -> float:
    """d token_loss / d now."""
    rho = math.exp(now - start)
    if (a > 0 and rho > 1 + high) or (a < 0 and rho < 1 - low):
        return 0.0
    return -min(math.exp(start - sampler), cap) * rho * a


def trained_tokens(forest: Forest) -> list[tuple[int, int]]:
    """(completion, index in its suffix) of every token that may be trained."""
    return [
        (i, k)
        for i, c in enumerate(forest.completions)
        for k, s in enumerate(c.sampled)
        if s and c.trainable and forest.trainable[c.rollout]
    ]


def row_logprobs(logits: list[float], temperature: float) -> list[float]:
    t = temperature if temperature > 0 else 1.0
    scaled = [x / t for x in logits]
    top = max(scaled)
    norm = top + math.log(math.fsum(math.exp(x - top) for x in scaled))
    return [x - norm for x in scaled]
