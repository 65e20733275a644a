"""How far a step moves the weights does not depend on how long the answers are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import train_reference as reference
from safetensors.torch import load_file
from test_engine_decode import Run
from train_reference import Completion, Forest
from train_tiny import save_policy, train

from hone_worker.base.adapter_files import fresh_adapter, read_adapter
from hone_worker.base.lora import LoraSpec, LoraWeights, default_targets
from hone_worker.base.model import Base, load_base

BASE = Path(__file__).parents[4] / "models" / "hone-2048-1m"
RATE = 3e-5


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(str(BASE), max_model_len=1024)


def sampled(base: Base, adapter: LoraWeights, length: int, step: int, gain: float) -> Forest:
    """Two groups of four answers of this length, one of each group rewarded."""
    run = Run(base)
    prompts = [torch.arange(12).mul(7 + group).remainder(700).tolist() for group in (0, 1)]
    choices = [run.add(prompts[i // 4], adapter, max_tokens=length, seed=8 * step + i) for i in range(8)]
    run.finish()
    forest = Forest()
    for i, choice in enumerate(choices):
        update = run.of(choice)
        prompt = choice.prompt
        forest.add(
            Completion(
                prompt + update.token_ids,
                [0] * len(prompt) + [1] * length,
                forest.rollout(gain * (i % 4 == 0), i // 4),
                policy=step - 1,
                logprobs=[0.0] * len(prompt) + update.logprobs,
            )
        )
    return forest


@pytest.mark.parametrize(("length", "gain"), [(1, 1.0), (8, 1.0), (512, 1.0), (1, 1e-3)])
def test_a_step_moves_the_weights_by_the_rate(base: Base, tmp_path: Path, length: int, gain: float) -> None:
    spec = LoraSpec(16, 32.0, default_targets(base.model))
    before = save_policy(tmp_path / "0", base, fresh_adapter(base.model, spec, 5))
    for step in (1, 2, 3):
        weights = read_adapter(before, base.model)
        forest = sampled(base, weights, length, step, gain)
        after = tmp_path / str(step)
        # All else is the default: the loss divides by 1024 tokens.
        options = reference.config(
            step=step,
            checkpoint=str(before),
            staging=str(after),
            lora={"r": 16, "alpha": 32.0},
            optimizer={"learning_rate": RATE, "warmup_steps": 0},
            plan=[[forest.leaves()]],
        )
        train(base, forest, options)
        old, new = (load_file(f / "adapter_model.safetensors") for f in (before, after))
        moments = load_file(after / "optimizer.safetensors")
        # What Adam's rule without an epsilon would have moved, where there was any gradient yet.
        wanted, moved = torch.zeros(0), torch.zeros(0)
        for name, tensor in new.items():
            key = name.removeprefix("base_model.model.")
            first, second = moments[f"{key}.exp_avg"], moments[f"{key}.exp_avg_sq"]
            some = second > 0
            rule = (first / (1 - 0.9**step)) / (second / (1 - 0.95**step)).sqrt()
            wanted = torch.cat([wanted, rule[some].abs()])
            moved = torch.cat([moved, (tensor - old[name])[some].abs() / RATE])
        assert moved.mean() >= 0.99 * wanted.mean()
        if step == 1:
            # B alone has a gradient, and every weight of it moves by the rate.
            assert len(moved) == len(wanted) > 70_000 and moved.mean() >= 0.99
        before = after


def test_with_an_epsilon_far_above_the_gradients_rewards_a_tenth_as_large_move_a_tenth_as_far(
    base: Base, tmp_path: Path
) -> None:
    spec = LoraSpec(16, 32.0, default_targets(base.model))
    before = save_policy(tmp_path / "0", base, fresh_adapter(base.model, spec, 5))
    old = load_file(before / "adapter_model.safetensors")
    moved = []
    for gain in (1.0, 0.1):
        forest = sampled(base, read_adapter(before, base.model), 8, 1, gain)
        after = tmp_path / str(gain)
        options = reference.config(
            step=1,
            checkpoint=str(before),
            staging=str(after),
            lora={"r": 16, "alpha": 32.0},
            optimizer={"learning_rate": 1.0, "warmup_steps": 0, "eps": 1e3, "max_grad_norm": 1e9},
            plan=[[forest.leaves()]],
        )
        train(base, forest, options)
        new = load_file(after / "adapter_model.safetensors")
        moved.append(torch.cat([(new[name] - old[name]).double().flatten() for name in new]))
    assert moved[0].norm() > 0
    assert (moved[1] - 0.1 * moved[0]).norm() < 0.01 * moved[1].norm()
