"""Packed trees by every way of attention against float64 rows, and the decoder's logprobs against the trainer's.

Trees are new in each run. What `torch.empty` gives is NaN, so that a place that no kernel fills is seen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.forward import logprobs
from transformers import Qwen3Config

from gpu.engine_run import answers
from gpu.shapes import Sequence, Work, adapter_of, config_of, make_base
from gpu.stage import Stage, free_memory
from gpu.steps import micro_batches

TOKENS = 1 << 20  # more than any tree here: one micro-batch


def run(stage: Stage) -> None:
    seed = random.randrange(1 << 30)
    stage.tell(kind="seed", seed=seed)
    decoding(stage)
    heads = ((8, 2), (4, 2)) if stage.full else ((4, 2),)
    for query, keys in heads:
        width = 128 if stage.full else 16
        config = config_of("tiny", heads=query, keys=keys, width=width, hidden=width * query, layers=2)
        share = 0.5 * stage.left if (query, keys) != heads[-1] else 0.9 * stage.left
        trees_of(stage, config, random.Random(seed), f"{query}:{keys}", share)
        free_memory()


def trees_of(stage: Stage, config: Qwen3Config, draw: random.Random, heads: str, seconds: float) -> None:
    """The worst relative error of logprobs and of an adapter's gradient, over all trees, for each way."""
    ways: list[tuple[str, str, torch.dtype]] = []
    if stage.device == "cuda":
        ways += [(a, "module", torch.float32) for a in ("masked", "flex")]
        ways += [(a, "joined", torch.bfloat16) for a in ("masked", "varlen", "flex")]
    else:
        ways += [(a, lora, torch.float32) for a in ("ranges", "masked") for lora in ("module", "joined")]
        ways += [(a, "joined", torch.float32) for a in ("varlen", "flex")]
    exact = make_base(config, stage.device, torch.float64)
    weights = adapter_of(exact, size=0.05)
    bases: dict[tuple[str, str, torch.dtype], Base] = {}
    for way in ways:
        attention, lora, dtype = way
        try:
            paths = ComputePaths.parse(f"attention={attention},lora={lora}")
            bases[way] = make_base(config, stage.device, dtype, paths)
        except HoneWorkerError as refused:
            stage.tell(kind="refused", heads=heads, attention=attention, lora=lora, why=refused.message)
    # The same weights for all: a coarser base has them rounded, and is compared with itself in float64.
    errors = {way: [0.0, 0.0] for way in bases}
    count = 0
    began = stage.left
    most = 50 if stage.full else 4
    _poison(True)
    for work in _trees(draw, most, 400 if stage.full else 40):
        if began - stage.left > seconds:
            break
        count += 1
        references: dict[torch.dtype, tuple[torch.Tensor, list[torch.Tensor]]] = {}
        for way, base in bases.items():
            if way[2] not in references:
                _same_weights(exact, base)
                references[way[2]] = found(exact, weights, work, "rows")
            logprob, gradients = found(base, weights, work, "tree")
            expected, sides = references[way[2]]
            errors[way][0] = max(errors[way][0], _apart(logprob, expected))
            # Queries and keys of a token that sees itself alone have no gradient, of which rounding leaves something.
            least = 0.01 * float(torch.cat([e.flatten() for e in sides]).norm())
            errors[way][1] = max(
                errors[way][1], *(_apart(g, e, least) for g, e in zip(gradients, sides, strict=True))
            )
    _poison(False)
    for (attention, lora, dtype), (logprob_error, gradient_error) in errors.items():
        stage.tell(
            kind="trees",
            heads=heads,
            attention=attention,
            lora=lora,
            dtype=str(dtype).removeprefix("torch."),
            trees=count,
            logprob_error=logprob_error,
            gradient_error=gradient_error,
            bound=1e-5 if dtype == torch.float32 else 1e-2,
        )


def found(
    base: Base, weights: LoraWeights, work: Work, packing: str
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logprobs of all trained tokens in the order of the sequences, and the gradient of every A and B."""
    exact = torch.promote_types(torch.float32, base.dtype)
    own = LoraWeights(
        weights.spec,
        {
            p: tuple(side.detach().to(base.device, exact, copy=True).requires_grad_() for side in pair)
            for p, pair in weights.tensors.items()
        },
    )
    parts: list[torch.Tensor] = []
    places: list[torch.Tensor] = []
    for micro_batch in micro_batches(work, packing=packing, most_tokens=TOKENS):
        logprob, _entropy = logprobs(base, own, micro_batch)
        factor = torch.sin(micro_batch.position.to(logprob))
        (logprob * factor).sum().backward()
        parts.append(logprob.detach().double())
        places.append(micro_batch.position)
    order = torch.cat(places).argsort().to(base.device)
    gradients = [side.grad for side in own.parameters()]
    return torch.cat(parts)[order], [
        torch.zeros(1, device=base.device) if g is None else g.double() for g in gradients
    ]


def _trees(draw: random.Random, count: int, longest: int) -> Iterator[Work]:
    """Single chains, deep chains of branches, wide fans, and sequences that are there twice."""

    def ids(length: int) -> list[int]:
        return [draw.randrange(512) for _ in range(max(1, length))]

    for number in range(count):
        sequences: list[list[int]] = []
        kind = number % 4
        if kind == 0:
            sequences = [ids(draw.randint(2, longest))]
        elif kind == 1:
            chain = ids(4)
            for _ in range(draw.randint(3, 12)):
                chain = chain + ids(draw.randint(1, longest // 10))
                sequences.append(chain + ids(draw.randint(1, longest // 10)))
        elif kind == 2:
            prompt = ids(draw.randint(1, longest // 2))
            sequences = [prompt + ids(draw.randint(1, longest // 4)) for _ in range(draw.randint(4, 16))]
        else:
            twice = ids(draw.randint(2, longest // 2))
            sequences = [twice, twice, twice + ids(3), ids(draw.randint(2, 9))]
        marked = [
            Sequence(s, [0, *(int(draw.random() < 0.7) for _ in s[1:-1]), 1]) for s in sequences if len(s) > 1
        ]
        yield Work(f"tree {number}", [marked])


def _same_weights(target: Base, source: Base) -> None:
    with torch.no_grad():
        for to, of in zip(target.model.parameters(), source.model.parameters(), strict=True):
            to.copy_(of)


def _apart(found: torch.Tensor, expected: torch.Tensor, least: float = 1e-12) -> float:
    """The distance in units of what was expected, or of `least` if that is more; NaN counts as infinitely far."""
    distance = float((found.double() - expected).norm() / expected.norm().clamp(min=least))
    return distance if distance == distance else float("inf")


def _poison(on: bool) -> None:
    torch.use_deterministic_algorithms(on, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = on


def decoding(stage: Stage) -> None:
    """Four policies mixed, none with B = 0: what the decoder says a token's logprob was, and what the trainer says."""
    config = config_of("tiny", width=128, heads=8, hidden=1024) if stage.full else config_of("tiny")
    base = make_base(
        config, stage.device, stage.dtype, ComputePaths.parse("lora=joined") if stage.full else None
    )
    policies = [adapter_of(base, seed, rank) for seed, rank in ((1, 16), (2, 16), (3, 8), (4, 16))]
    for way in ("eager", "graph"):
        made = answers(base, policies, rows=16 if stage.full else 6, prompt=48, tokens=24, decode=way)
        total = worst = 0.0
        tokens = 0
        for policy, prompt, ids, told in made:
            sequence = Sequence(prompt + ids, [0] * len(prompt) + [1] * len(ids))
            with torch.no_grad():
                (micro_batch,) = micro_batches(Work("one", [[sequence]]), packing="rows", most_tokens=TOKENS)
                weights = policies[policy].to(base.device)
                expected, _entropy = logprobs(base, weights, micro_batch)
            apart = (expected.double().cpu() - torch.tensor(told, dtype=torch.float64)).abs()
            total += float(apart.sum())
            worst = max(worst, float(apart.max()))
            tokens += len(ids)
        stage.tell(
            kind="decode",
            way=way,
            policies=len(policies),
            tokens=tokens,
            mean_apart=total / tokens,
            worst_apart=worst,
            bound=5e-3,
        )
