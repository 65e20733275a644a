"""Gradients of the whole path against PEFT and torch by hand, finite differences, and each other."""

from functools import partial

import pytest
import torch
import train_reference as reference
from train_reference import Completion, Forest
from train_tiny import (
    ByHand,
    grown_forest,
    last_gradient,
    peft_parameters,
    policy_loss,
    relative_difference,
    sample_logprobs,
    save_policy,
    tiny_base,
    train,
    trained_adapter,
)
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.train.forward import logprobs
from hone_worker.train.objectives.policy_gradient import PolicyGradient as LossConfig
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data


@pytest.fixture(params=["rows", "tree"], autouse=True)
def packing(request, monkeypatch):
    """All of this holds however the sequences go through the model."""
    config = partial(reference.config, packing=request.param)
    monkeypatch.setattr(reference, "config", config)
    return request.param


def options(tmp_path, policy, **changes):
    optimizer = {"learning_rate": 0.01, "max_grad_norm": 1e9, "warmup_steps": 0}
    return reference.config(
        staging=str(tmp_path / "staging"), checkpoint=str(policy), **{"optimizer": optimizer, **changes}
    )


@pytest.mark.parametrize("scale", ["none", "group"])
def test_one_step_has_the_gradient_of_peft_by_hand(base, policy, tmp_path, packing, scale):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=1.5)
    leaves = forest.leaves()
    plan = [[leaves[:3], leaves[3:4], leaves[4:]]]
    loss = {"scale_rewards": scale, "normalizer_tokens": 50, "importance_cap": 1.6}
    given = options(tmp_path, policy, plan=plan, loss=loss)
    result = train(base, forest, given)

    hand = ByHand(policy, forest, given)
    step = hand.backward(leaves, len(forest.rewards), set())
    assert step.capped > 3
    assert relative_difference(last_gradient(tmp_path / "staging", 0.9), hand.gradients()) < 1e-5
    metrics = result["metrics"]
    assert metrics["loss"] == pytest.approx(step.loss, rel=1e-5)
    norm = torch.cat([g.flatten() for g in hand.gradients().values()]).norm().item()
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert metrics["train_tokens"] == len(reference.trained_tokens(forest))
    assert metrics["unpacked_micro_batches"] == (3 if packing == "rows" else 0)


def test_a_gradient_above_the_norm_is_clipped_to_it(base, policy, tmp_path):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.1)
    optimizer = {"learning_rate": 0.01, "max_grad_norm": 1e-3, "warmup_steps": 0}
    given = options(tmp_path, policy, plan=[[forest.leaves()]], optimizer=optimizer)
    result = train(base, forest, given)
    gradient = last_gradient(tmp_path / "staging", 0.9)
    norm = torch.cat([g.flatten() for g in gradient.values()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3) and result["metrics"]["grad_norm"] > 2e-3


def test_two_steps_clip_on_both_sides_and_end_where_peft_by_hand_ends(base, policy, tmp_path):
    forest = grown_forest(seed=4)
    sample_logprobs(forest, policy, noise=1.5)
    leaves = forest.leaves()
    first, second = leaves[::2], leaves[1::2]
    # A large eps keeps Adam from turning rounding into steps; beta 0 leaves the last gradient to be read.
    optimizer = {
        "learning_rate": 0.3,
        "betas": [0.0, 0.95],
        "eps": 0.05,
        "max_grad_norm": 1e9,
        "warmup_steps": 0,
    }
    loss = {"epsilon_low": 0.1, "epsilon_high": 0.15, "normalizer_tokens": 20}
    given = options(tmp_path, policy, plan=[[first], [second]], optimizer=optimizer, loss=loss)
    result = train(base, forest, given)

    hand = ByHand(policy, forest, given)
    hand.remember_start()
    parameters = peft_parameters(hand.model)
    adam = torch.optim.AdamW(parameters.values(), lr=0.3, betas=(0.0, 0.95), eps=0.05, weight_decay=0)
    done: set = set()
    trained = [
        {forest.completions[c].rollout for c, _ in reference.trained_tokens(forest) if c in paths}
        for paths in _first_paths(forest, [first, second])
    ]
    sizes = [len(forest.rewards) * len(t) / sum(len(t) for t in trained) for t in trained]
    one = hand.backward(first, sizes[0], done)
    adam.step()
    adam.zero_grad()
    two = hand.backward(second, sizes[1], done)
    gradients = hand.gradients()
    adam.step()

    assert one.clipped_low == one.clipped_high == 0
    assert two.clipped_low > 0 and two.clipped_high > 0 and two.capped > 0
    assert relative_difference(last_gradient(tmp_path / "staging", 0.0), gradients) < 1e-5
    ours = read_adapter(tmp_path / "staging", base.model).tensors
    ours = {f"{p}.lora_{s}.weight": t for p, pair in ours.items() for s, t in zip("AB", pair, strict=True)}
    assert relative_difference(ours, {n: p.detach() for n, p in parameters.items()}) < 1e-5
    metrics, tokens = result["metrics"], result["metrics"]["train_tokens"]
    assert metrics["clip_ratio/low_mean"] == pytest.approx(two.clipped_low / tokens)
    assert metrics["clip_ratio/high_mean"] == pytest.approx(two.clipped_high / tokens)
    assert metrics["clip_ratio/region_mean"] == pytest.approx((two.clipped_low + two.clipped_high) / tokens)
    assert metrics["loss"] == pytest.approx((one.loss + two.loss) / 2, rel=1e-5)


def _first_paths(forest, steps):
    """Completions that each step is the first to hold."""
    seen: set[int] = set()
    result = []
    for leaves in steps:
        held = {c for leaf in leaves for c in forest.path(leaf)} - seen
        seen |= held
        result.append(held)
    return result


def test_the_gradient_passes_finite_differences_where_ratios_are_clipped_and_capped(
    tmp_path, monkeypatch, packing
):
    def exact_norm(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    # The model's own norm goes through float32 whatever its input, too coarse for differences of 1e-6.
    monkeypatch.setattr(Qwen3RMSNorm, "forward", exact_norm)
    base = tiny_base(dtype=torch.float64)
    policy = save_policy(tmp_path / "policy", base, trained_adapter(base))
    forest = grown_forest(seed=2)
    sample_logprobs(forest, policy, noise=1.5)
    given = options(tmp_path, policy, plan=[[forest.leaves()]])
    data, config = parse_step_data(reference.body(forest, given))
    advantages = torch.tensor(
        reference.advantages(forest.rewards, forest.groups, "none"), dtype=torch.float64
    )
    ((micro_batch,),) = (
        step.micro_batches for step in mini_batches(data, config, advantages[data.completion_rollout.long()])
    )
    assert (micro_batch.layout is not None) == (packing == "tree")
    loss = LossConfig(epsilon_low=0.1, epsilon_high=0.1, normalizer_tokens=1)

    read = read_adapter(policy, base.model)
    random = torch.Generator().manual_seed(0)

    def moved(pairs, direction, step):
        return {
            p: tuple(t + step * d for t, d in zip(pair, direction[p], strict=True))
            for p, pair in pairs.items()
        }

    def direction():
        return {
            p: tuple(torch.randn(t.shape, generator=random, dtype=torch.float64) for t in pair)
            for p, pair in read.tensors.items()
        }

    origin = {p: tuple(t.double() for t in pair) for p, pair in read.tensors.items()}
    # pi_o is that of the policy; pi is that of one which has moved away from it.
    start = logprobs(base, LoraWeights(read.spec, origin), micro_batch)[0]
    now = moved(origin, direction(), 0.01)

    def value(pairs):
        result, _ = logprobs(base, LoraWeights(read.spec, pairs), micro_batch)
        return policy_loss(result, start, micro_batch.sampler, micro_batch.advantage, 8, loss)

    leaf = {p: tuple(t.clone().requires_grad_() for t in pair) for p, pair in now.items()}
    result = value(leaf)
    result.total.backward()
    assert result.low.any() and result.high.any()
    assert ((start - micro_batch.sampler).exp() > 2).any()
    # No kink within reach of the finite step.
    ratio = torch.exp(logprobs(base, LoraWeights(read.spec, now), micro_batch)[0] - start)
    assert min((ratio - 0.9).abs().min(), (ratio - 1.1).abs().min()) > 1e-4
    for _ in range(3):
        d = direction()
        slope = sum((t.grad * v).sum().item() for p in leaf for t, v in zip(leaf[p], d[p], strict=True))
        step = 1e-6
        with torch.no_grad():
            above, below = value(moved(now, d, step)).total, value(moved(now, d, -step)).total
        assert slope == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-6, abs=1e-6)
        assert abs(slope) > 1e-3


def split(forest: Forest) -> Forest:
    """The same rollouts with every completion a root of its own, its history as unsampled prompt."""
    f = Forest(rewards=forest.rewards, groups=forest.groups, trainable=forest.trainable)
    for i, c in enumerate(forest.completions):
        history = forest.sequence(c.parent) if c.parent >= 0 else []
        f.add(
            Completion(
                history + c.suffix,
                [0] * len(history) + c.sampled,
                c.rollout,
                temperature=c.temperature,
                policy=c.policy,
                trainable=c.trainable,
                logprobs=[0.0] * len(history) + c.logprobs,
            )
        )
        assert f.sequence(i) == forest.sequence(i)
    return f


def test_a_rollout_cut_into_sequences_has_the_same_gradient(base, policy, tmp_path):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.5)
    pieces = split(forest)
    assert len(pieces.leaves()) > len(forest.leaves())
    gradients = []
    for name, f in (("tree", forest), ("pieces", pieces)):
        given = options(tmp_path, policy, plan=[[f.leaves()]])
        given["staging"] = str(tmp_path / name)
        train(base, f, given)
        gradients.append(last_gradient(tmp_path / name, 0.9))
    assert relative_difference(*gradients) < 1e-5


def test_the_gradient_does_not_depend_on_the_micro_batches(base, policy, tmp_path):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.5)
    leaves = forest.leaves()
    gradients = []
    for name, plan in (("one", [[leaves]]), ("each", [[[leaf] for leaf in reversed(leaves)]])):
        given = options(tmp_path, policy, plan=plan)
        given["staging"] = str(tmp_path / name)
        train(base, forest, given)
        gradients.append(last_gradient(tmp_path / name, 0.9))
    assert relative_difference(*gradients) < 1e-5


def test_masked_rollouts_and_equal_groups_count_in_the_scale(base, policy, tmp_path):
    """Leaving them out of the step data changes R, and so the gradient, by a known factor."""
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.1)
    smaller = Forest(rewards=forest.rewards[:3], groups=forest.groups[:3], trainable=forest.trainable[:3])
    for c in forest.completions[:12]:
        smaller.add(c)
    larger = Forest(smaller.completions, [*smaller.rewards, 0.5, 0.5], [0, 0, 0, 1, 1], [1] * 5)
    gradients = []
    for name, f in (("smaller", smaller), ("larger", larger)):
        given = options(tmp_path, policy, plan=[[smaller.leaves()]])
        given["staging"] = str(tmp_path / name)
        train(base, f, given)
        gradients.append(last_gradient(tmp_path / name, 0.9))
    scaled = {name: g * 5 / 3 for name, g in gradients[1].items()}
    assert relative_difference(scaled, gradients[0]) < 1e-5
