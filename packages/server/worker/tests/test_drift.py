"""The KL to the base or to a fixed policy: in the loss, in the reward, and as a metric of every step."""

import hashlib
import json
import math

import pytest
import torch
import train_reference as reference
from safetensors.torch import save
from train_tiny import (
    ByHand,
    grown_forest,
    last_gradient,
    peft_parameters,
    relative_difference,
    sample_logprobs,
    save_policy,
    tiny_base,
    train,
    trained_adapter,
)

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.forward import logprobs
from hone_worker.train.operation import train_steps
from hone_worker.train.rows import SAMPLE_SHARE, sampled_micro_batch
from hone_worker.train.step_data import parse_step_data

DAPO = {"type": "dapo", "samplerCorrection": "none"}


@pytest.fixture(scope="module")
def exact():
    return tiny_base(dtype=torch.float64)


@pytest.fixture
def other(exact, tmp_path):
    """Another policy of the same model."""
    return save_policy(tmp_path / "other", exact, trained_adapter(exact, seed=8))


@pytest.fixture
def forest(policy):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.01)
    return forest


def options(tmp_path, policy, forest, **changes):
    leaves = forest.leaves()
    optimizer = {"learningRate": 0.01, "maxGradNorm": 1e9, "warmupSteps": 0}
    given = {
        **{"staging": str(tmp_path / "staging"), "checkpoint": str(policy), "plan": [[leaves]]},
        **{"packing": "tree", "optimizer": optimizer},
    }
    return reference.config(**{**given, **changes})


def by_hand(policy, other, forest, beta):
    """KL (k3) to `other` over all trained tokens, and dapo's gradient with it, in float64."""
    hand, fixed = (ByHand(folder, forest, {}, torch.float64) for folder in (policy, other))
    fixed.remember_start()
    trained = reference.trained_tokens(forest)
    kl, total, done = [], torch.zeros((), dtype=torch.float64), set()
    a = reference.advantages(forest.rewards, forest.groups, "group")
    for leaf in forest.leaves():
        for c, k, logprob in hand.tokens(leaf):
            if (c, k) not in hand.trained or (c, k) in done:
                continue
            done.add((c, k))
            r = fixed.start[c, k] - logprob
            kl.append(torch.exp(r) - r - 1)
            ratio = torch.exp(logprob - logprob.detach())
            total = total - ratio * a[forest.completions[c].rollout] + beta * kl[-1]
    assert len(kl) == len(trained)
    (total / len(trained)).backward()
    gradients = {name: p.grad.clone() for name, p in peft_parameters(hand.model).items()}
    return float(sum(kl).detach()) / len(kl), gradients


def test_the_kl_to_a_fixed_policy_in_the_loss_is_that_of_a_float64_reference(
    exact, policy, other, forest, tmp_path
):
    loss = {**DAPO, "beta": 0.3, "reference": 4}
    given = options(tmp_path, policy, forest, loss=loss)
    metrics = train(exact, forest, {**given, "reference": str(other)})["metrics"]
    kl, gradients = by_hand(policy, other, forest, 0.3)
    # The step data has temperatures in float32.
    assert metrics["kl"] == pytest.approx(kl, rel=1e-7) and kl > 1e-3
    assert metrics["kl_tokens"] == metrics["train_tokens"] == len(reference.trained_tokens(forest))
    ours = last_gradient(tmp_path / "staging", 0.9)
    assert relative_difference(ours, gradients) < 1e-6
    # Another reference gives another gradient.
    train(exact, forest, {**given, "staging": str(tmp_path / "base")})
    assert relative_difference(last_gradient(tmp_path / "base", 0.9), gradients) > 1e-3


def test_the_kl_to_a_fixed_policy_in_the_reward_is_taken_off_each_rollout(
    exact, policy, other, forest, tmp_path
):
    loss = {**DAPO, "beta": 0.3, "klIn": "reward", "scaleRewards": "none"}
    given = options(tmp_path, policy, forest, loss={**loss, "reference": 4})
    train(exact, forest, {**given, "reference": str(other)})
    now, fixed = (ByHand(folder, forest, {}, torch.float64) for folder in (policy, other))
    for hand in (now, fixed):
        hand.remember_start()
    rewards = list(forest.rewards)
    for c, k in reference.trained_tokens(forest):
        rewards[forest.completions[c].rollout] -= 0.3 * (now.start[c, k] - fixed.start[c, k])
    forest.rewards = rewards
    plain = options(tmp_path, policy, forest, loss={**DAPO, "scaleRewards": "none"})
    train(exact, forest, {**plain, "staging": str(tmp_path / "plain")})
    ours, theirs = (last_gradient(tmp_path / name, 0.9) for name in ("staging", "plain"))
    assert relative_difference(ours, theirs) < 1e-6


@pytest.mark.parametrize("loss", [{"type": "gspo", "beta": 0.2}, {"measureKl": True}, {}])
def test_there_is_no_drift_from_the_policy_itself(base, policy, forest, tmp_path, loss):
    given = options(tmp_path, policy, forest, loss={**loss, "reference": 0})
    metrics = train(base, forest, {**given, "reference": str(policy)})["metrics"]
    # A sample goes through in a row of another width, and is rounded differently.
    assert metrics["kl_tokens"] > 0 and metrics["kl"] < (1e-11 if loss == {} else 1e-30)


def long_forest(rollouts=24, answer=10):
    """Groups of four with a prompt each, of two turns."""
    random = torch.Generator().manual_seed(5)

    def ids(count):
        return torch.randint(40, (count,), generator=random).tolist()

    forest = reference.Forest()
    for i in range(rollouts):
        if i % 4 == 0:
            prompt = ids(12)
        owner = forest.rollout(float(i % 3), i // 4)
        first = forest.add(reference.Completion(prompt + ids(answer), [0] * 12 + [1] * answer, owner))
        forest.add(reference.Completion(ids(4 + answer), [0] * 4 + [1] * answer, owner, parent=first))
    return forest


@pytest.mark.parametrize("packing", ["tree", "rows"])
def test_every_step_measures_its_drift_on_a_small_sample_that_its_plan_decides(
    base, policy, tmp_path, packing
):
    forest = long_forest()
    leaves = forest.leaves()
    plan = [[leaves[i : i + 6] for i in range(0, 24, 6)]]
    given = options(tmp_path, policy, forest, plan=plan, seed=11, packing=packing)

    def measured(name, **changes):
        staging = tmp_path / name
        metrics = train(base, forest, {**given, "staging": str(staging), **changes})["metrics"]
        files = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in staging.iterdir()}
        return metrics, files

    none, files = measured("none", loss={"measureKl": False})
    assert none["kl"] is None and none["kl_tokens"] == 0
    every, of_every = measured("every", loss={"measureKl": True})
    some, of_some = measured("some")
    again, _ = measured("again")
    # What is measured changes nothing about what is trained.
    assert files == of_every == {**of_some}
    assert every["kl_tokens"] == every["train_tokens"] == 480
    assert 10 <= some["kl_tokens"] <= some["model_tokens"] * SAMPLE_SHARE
    assert (again["kl"], again["kl_tokens"]) == (some["kl"], some["kl_tokens"])
    # Samples of many seeds: together they show the drift of all tokens.
    samples = [measured(f"seed-{s}", seed=s)[0] for s in range(10)]
    assert len({m["kl"] for m in samples}) > 5
    total = sum(m["kl"] * m["kl_tokens"] for m in samples) / sum(m["kl_tokens"] for m in samples)
    assert total == pytest.approx(every["kl"], rel=0.4)


def test_a_sample_of_one_long_sequence_ends_early_and_one_of_several_optimizer_steps_is_one(
    base, policy, tmp_path
):
    forest = reference.Forest()
    prompt = [1 + i % 30 for i in range(90)]
    for reward in (0.0, 1.0):
        answer = [int(reward) + i % 7 for i in range(200)]
        forest.add(reference.Completion(prompt + answer, [0] * 90 + [1] * 200, forest.rollout(reward, 0)))
    given = options(tmp_path, policy, forest)
    data, config = parse_step_data(reference.body(forest, given))
    sample = sampled_micro_batch(data, config, 490, packable=True)
    assert sample.tokens == 105 and len(sample.position) == 16
    assert sampled_micro_batch(data, config, 16 * 150, packable=True).tokens == 150
    metrics = train(base, forest, given)["metrics"]
    assert metrics["kl_tokens"] == 16 and metrics["kl"] > 0

    forest = long_forest()
    leaves = forest.leaves()
    given = options(tmp_path / "two", policy, forest, plan=[[leaves[:12]], [leaves[12:]]])
    metrics = train(base, forest, given)["metrics"]
    assert metrics["kl_tokens"] > 0 and math.isfinite(metrics["kl"])


def test_imitation_has_no_drift(base, policy, forest, tmp_path):
    given = options(tmp_path, policy, forest, loss={"type": "sft"})
    data, config = parse_step_data(save(forest.tensors(), metadata={"config": json.dumps(given)}))
    events = list(train_steps(base, data, config, lambda: False))
    assert events[-1]["metrics"]["kl"] is None
    assert "reference_logprobs" not in [event.get("stage") for event in events]


def test_logprobs_that_are_not_finite_end_the_step_wherever_they_are_computed(
    base, policy, forest, tmp_path, monkeypatch
):
    def broken(*args, **named):
        logprob, entropy = logprobs(*args, **named)
        if torch.is_grad_enabled():
            return logprob, entropy
        return torch.cat([torch.full_like(logprob[:1], float("nan")), logprob[1:]]), entropy

    monkeypatch.setattr("hone_worker.train.operation.logprobs", broken)
    given = options(tmp_path, policy, forest, loss={"type": "policy_gradient", "measureKl": True})
    data, config = parse_step_data(reference.body(forest, given))
    with pytest.raises(HoneWorkerError) as caught:
        list(train_steps(base, data, config, lambda: False))
    assert caught.value.code == "non_finite"
    assert not list((tmp_path / "staging").iterdir())


@pytest.mark.parametrize("seed", range(6))
def test_a_padded_sample_is_no_larger_with_its_padding(policy, forest, tmp_path, seed):
    given = options(tmp_path, policy, forest, seed=seed)
    data, config = parse_step_data(reference.body(forest, given))
    sample = sampled_micro_batch(data, config, int(60 / SAMPLE_SHARE), packable=False)
    rows, width = sample.input_ids.shape
    assert rows == 1 or rows * width <= 60
    larger = sampled_micro_batch(data, config, int(600 / SAMPLE_SHARE), packable=False)
    assert len(larger.input_ids) > 1
