"""A young adapter changes logprobs in bfloat16 by what it changes them by in float32, in every forward.

Its weights are a step of Adam up the logprob of the tokens that are then looked at, at the sizes that B has after
one to a few steps at the default rate. The slope is the sum of the changes over the sum of those in float32: the
noise of bfloat16, as large as the change of one logprob, is nearly gone from it. Added to outputs that are rounded
already these adapters have slopes of −.1 to .5.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import train_reference as reference
from safetensors.torch import load_file, save_file
from test_engine_families import SHAPE, save
from torch import Tensor
from train_reference import Completion, Forest
from transformers import AutoModelForCausalLM, Phi3Config, PreTrainedConfig, Qwen2Config, Qwen3Config

from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.joined_lora import JoinedLora
from hone_worker.base.lora import LoraSpec, LoraWeights, default_targets
from hone_worker.base.model import Base, load_base
from hone_worker.engine.cache import SlotCache, probe_shapes
from hone_worker.engine.forward import Forward, ModelForward, Step
from hone_worker.engine.lean import LeanForward
from hone_worker.engine.spans import Span
from hone_worker.tools.merge import merge, rounded
from hone_worker.train.forward import logprobs
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data

ROWS, WIDTH = 24, 96
# Few tokens, so that many places want the same change.
IDS = torch.randint(60, 64, (ROWS, WIDTH), generator=torch.Generator().manual_seed(4))
WIDE: dict[str, Any] = {
    **SHAPE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "head_dim": 32,
    "initializer_range": 0.05,
}
FAMILIES = {
    "qwen3": Qwen3Config(**WIDE),
    # With biases, as large as they are in the real ones.
    "qwen2": Qwen2Config(**WIDE),
    # Fused layers, and no lean forward.
    "phi3": Phi3Config(**WIDE),
}
SIZES = (6e-6, 3e-5)


def whole(slope: float) -> bool:
    """With the noise that is left of sums over a thousand tokens."""
    return 0.65 < slope < 1.35


class Pair:
    """The same weights twice, and adapters that raise the logprobs of IDS."""

    def __init__(self, config: PreTrainedConfig, folder: Path) -> None:
        self.folder = save(config, folder)
        weights = load_file(folder / "model.safetensors")
        noise = torch.Generator().manual_seed(9)
        for name, tensor in weights.items():
            if name.endswith("bias"):
                tensor.normal_(0, 4, generator=noise)
        exact = {name: tensor.bfloat16() for name, tensor in weights.items()}
        save_file(exact, folder / "model.safetensors", metadata={"format": "pt"})
        config.dtype = torch.bfloat16
        config.save_pretrained(folder)
        self.fine = load_base(str(folder), dtype="float32", served_name="p")
        self.base = load_base(str(folder), dtype="bfloat16", served_name="p")
        fresh = fresh_adapter(self.fine.model, LoraSpec(16, 32.0, default_targets(self.fine.model)), 3)
        moved = fresh.trainable()
        with self.fine.router.single(moved):
            (-of_model(self.fine.model)).sum().backward()
        signs = {p: b.grad.sign() for p, (_a, b) in moved.tensors.items()}
        self.up = {size: _with_b(fresh, {p: -size * s for p, s in signs.items()}) for size in SIZES}
        self.down = {size: _with_b(fresh, {p: size * s for p, s in signs.items()}) for size in SIZES}

    def change(self, weights: LoraWeights) -> Tensor:
        """[rows]: in float32."""
        with torch.no_grad():
            before = of_model(self.fine.model)
            with self.fine.router.single(weights):
                return (of_model(self.fine.model) - before).sum(1)


def _with_b(fresh: LoraWeights, new: dict[str, Tensor]) -> LoraWeights:
    return LoraWeights(fresh.spec, {p: (a, new[p]) for p, (a, _b) in fresh.tensors.items()})


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.set_num_threads(1)
    return Pair(FAMILIES[request.param], tmp_path_factory.mktemp(request.param))


def of_logits(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def of_model(model: torch.nn.Module) -> Tensor:
    """[rows, width − 1] of IDS."""
    return of_logits(model(IDS, use_cache=False).logits[:, :-1], IDS[:, 1:])


def decoded(base: Base, forward: Forward, adapters: list[LoraWeights | None]) -> Tensor:
    """[rows, tokens] of the second half of IDS: the first half as pieces of prompts, then token for token."""
    cache = SlotCache(probe_shapes(base.model, base.device), base.device)
    cache.resize(ROWS, WIDTH, [])
    half = WIDTH // 2
    every = torch.arange(half).expand(ROWS, -1)
    found = []
    with torch.inference_mode():
        for at in range(half, WIDTH):
            first = at == half
            live = 0 if first else ROWS
            logits = forward.run(
                Step(
                    cache=cache,
                    live=live,
                    ids=IDS[:live, at - 1],
                    positions=torch.full((live,), at - 1),
                    adapters=[] if first else adapters,
                    spans=[] if first else [Span(0, ROWS, at)],
                    piece_rows=list(range(ROWS)) if first else [],
                    piece_counts=[half] * ROWS if first else [],
                    piece_length=half if first else 0,
                    piece_ids=IDS[:, :half] if first else IDS[:, :0],
                    piece_positions=every if first else every[:, :0],
                    piece_adapters=adapters if first else [],
                )
            )
            if logits is not None:
                found.append(of_logits(logits, IDS[:, at]))
    return torch.stack(found, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("packing", "lora"), [("rows", "module"), ("tree", "module"), ("tree", "joined")])
def test_the_trainers_forward(
    pair: Pair, size: float, packing: str, lora: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pair.base.router, "joined", JoinedLora(pair.base.router) if lora == "joined" else None
    )
    forest = Forest()
    for row in IDS.tolist():
        forest.add(
            Completion(row, [0] + [1] * (WIDTH - 1), forest.rollout(float(len(forest.rewards) % 2), 0))
        )
    options = reference.config(packing=packing, plan=[[forest.leaves()]])
    data, config = parse_step_data(reference.body(forest, options))
    (step,) = mini_batches(data, config, (data.rollout_reward - 0.5)[data.completion_rollout.long()])
    (micro,) = step.micro_batches

    def at(weights: LoraWeights) -> Tensor:
        with torch.no_grad():
            return logprobs(pair.base, weights, micro)[0]

    young = pair.up[size]
    none = _with_b(young, {p: torch.zeros_like(b) for p, (_a, b) in young.tensors.items()})
    assert whole(float((at(young) - at(none)).sum() / pair.change(young).sum()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [ModelForward, LeanForward])
def test_the_decoders_forwards(pair: Pair, size: float, kind: Callable[[Base], Forward]) -> None:
    if kind is LeanForward and pair.base.model.config.model_type == "phi3":
        pytest.skip("phi3 has no lean forward")
    forward = kind(pair.base)
    up, down = pair.up[size], pair.down[size]
    none = _with_b(up, {p: torch.zeros_like(b) for p, (_a, b) in up.tensors.items()})
    half = WIDTH // 2 - 1
    with torch.no_grad():
        fine = of_model(pair.fine.model)
        changes = {}
        for name, weights in (("up", up), ("down", down)):
            with pair.fine.router.single(weights):
                changes[name] = (of_model(pair.fine.model) - fine)[:, half:].sum(1)
    before = decoded(pair.base, forward, [none] * ROWS)
    alone = decoded(pair.base, forward, [up] * ROWS)
    assert whole(float((alone - before).sum() / changes["up"].sum()))
    # Rows of two adapters, of the bare base and of an adapter that adds nothing, in one forward.
    before = decoded(pair.base, forward, [none, none, None, none] * (ROWS // 4))
    change = (decoded(pair.base, forward, [up, down, None, none] * (ROWS // 4)) - before).sum(1)
    assert not change[2::4].any() and not change[3::4].any()
    if size == max(SIZES):
        for first, name in enumerate(changes):
            assert whole(float(change[first::4].sum() / changes[name][first::4].sum()))


@pytest.mark.parametrize("size", SIZES)
def test_the_merged_copy(pair: Pair, size: float, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    write_adapter(tmp_path / "adapter", pair.up[size], "p")
    merge(str(pair.folder), tmp_path / "adapter", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").eval()
    plain = AutoModelForCausalLM.from_pretrained(pair.folder, dtype="auto").eval()
    assert merged.dtype == torch.bfloat16
    with torch.no_grad():
        change = (of_model(merged) - of_model(plain)).sum()
        fine = (of_model(merged.float()) - of_model(plain.float())).sum()
    wanted = pair.change(pair.up[size]).sum()
    assert whole(float(change / wanted)) and whole(float(fine / wanted))


def test_rounding_by_chance_is_right_on_average_and_the_same_each_time() -> None:
    exact = torch.tensor([1.0, 1 + 2**-9, -1 - 2**-10, 0.0, 3e-5, 1 + 2**-8]).repeat(20_000, 1)
    kept = rounded(exact, torch.bfloat16, torch.Generator().manual_seed(1))
    assert kept.dtype == torch.bfloat16
    # Never further than the next value on either side, and what can be held is held.
    assert ((kept.float() - exact).abs() <= exact.abs() * 2**-7).all()
    assert torch.equal(kept[:, [0, 3]].float(), exact[:, [0, 3]])
    error = (kept.float() - exact).mean(0).abs()
    assert (error <= exact[0].abs() * 2**-7 * 0.02).all()
    assert torch.equal(kept, rounded(exact, torch.bfloat16, torch.Generator().manual_seed(1)))
    assert torch.equal(rounded(exact, torch.float32, torch.Generator()), exact)
