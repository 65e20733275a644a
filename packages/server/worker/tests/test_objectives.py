"""Objectives are found by name, get what a loss may look at, and leave sums that merge."""

import json
from itertools import cycle
from typing import Literal

import pytest
import torch
import train_reference as reference
from train_tiny import ByHand, grown_forest, sample_logprobs, tiny_base

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.advantages import Advantages
from hone_worker.train.forward import logprobs
from hone_worker.train.metrics import StepMetrics
from hone_worker.train.objectives import OBJECTIVES, objective_of
from hone_worker.train.objectives.objective import LossInputs, LossOutputs, Objective
from hone_worker.train.objectives.policy_gradient import PolicyGradient, loss
from hone_worker.train.operation import train_steps
from hone_worker.train.options import Options
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_config, parse_step_data


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture
def forest(policy):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.3)
    return forest


def options(tmp_path, policy, forest, **changes):
    leaves = forest.leaves()
    plan = [[leaves[:3], leaves[3:5], leaves[5:]]]
    staging = str(tmp_path / "staging")
    return reference.config(staging=staging, checkpoint=str(policy), plan=plan, **changes)


def config(**changes):
    return parse_config(json.dumps(reference.config(**changes)))


def test_options_are_read_as_core_spells_them_and_as_older_plans_do():
    now = config(
        loss={"type": "policy_gradient", "epsilonHigh": 0.28, "scaleRewards": "group"},
        optimizer={"learningRate": 0.1, "beta1": 0.5, "beta2": 0.6, "weightDecay": 0.1},
    )
    then = config(
        loss={"epsilon_high": 0.28, "scale_rewards": "group"},
        optimizer={"learning_rate": 0.1, "betas": [0.5, 0.6], "weight_decay": 0.1},
    )
    assert now == then and now.loss == PolicyGradient(epsilon_high=0.28, scale_rewards="group")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"loss": {"type": "none_such"}}, "loss"),
        ({"loss": {"type": "policy_gradient", "epsilonHigh": -1}}, "loss.epsilonHigh"),
        ({"loss": {"type": "policy_gradient", "beta": 1}}, "loss.beta"),
        ({"optimizer": {"learning_rate": 1, "betas": [0.9]}}, "optimizer.betas"),
    ],
)
def test_what_no_objective_knows_is_refused_by_its_name(change, name):
    with pytest.raises(HoneWorkerError) as caught:
        config(**change)
    assert (caught.value.code, caught.value.param) == ("bad_config", name)


def test_a_token_of_weight_two_counts_as_that_token_twice():
    random = torch.Generator().manual_seed(1)
    now, old, sampler = (-torch.rand(3, 10, generator=random, dtype=torch.float64) - 0.1).unbind()
    advantages = torch.randn(10, generator=random, dtype=torch.float64)

    def total(where, **weights):
        tokens = (x[where] for x in (now, old, sampler, advantages))
        inputs = LossInputs(*tokens, where, where, where, 4, **weights)
        return loss(inputs, PolicyGradient()).total.item()

    weights = torch.ones(10, dtype=torch.float64)
    weights[3] = 2
    twice = torch.tensor([*range(10), 3])
    assert total(torch.arange(10), weights=weights) == pytest.approx(total(twice), rel=1e-12)


class Likelihood(Options):
    type: Literal["likelihood"] = "likelihood"
    scale: float = 1.0


def test_another_objective_is_trained_by_name(base, policy, forest, tmp_path, monkeypatch):
    """Maximum likelihood: no advantages, one metric of its own."""
    objective = Objective(
        Likelihood,
        lambda rewards, groups, _options: Advantages(torch.ones_like(rewards), 0, len(groups.unique())),
        lambda inputs, options: LossOutputs(
            -options.scale * inputs.logprobs.sum() / inputs.rollouts, {"nll": -inputs.logprobs.detach()}
        ),
        lambda sums: {"nll": sums["nll"].mean},
    )
    monkeypatch.setitem(OBJECTIVES, objective.name, objective)
    data, given = parse_step_data(reference.body(forest, options(tmp_path, policy, forest)))
    given = given.model_copy(update={"loss": Likelihood(scale=0.5)})
    metrics = list(train_steps(base, data, given, lambda: False))[-1]["metrics"]

    hand = ByHand(policy, forest, {})
    hand.remember_start()
    nll = [-hand.start[token] for token in reference.trained_tokens(forest)]
    assert metrics["nll"] == pytest.approx(sum(nll) / len(nll), rel=1e-5)
    assert metrics["loss"] == pytest.approx(0.5 * sum(nll) / len(forest.rewards), rel=1e-5)
    assert "clip_ratio/low_mean" not in metrics


def test_metrics_of_shared_out_micro_batches_merge_into_those_of_all(base, policy, forest, tmp_path):
    data, given = parse_step_data(reference.body(forest, options(tmp_path, policy, forest)))
    objective = objective_of(given.loss)
    advantages = objective.advantages(data.rollout_reward, data.rollout_group, given.loss)
    (step,) = mini_batches(data, given, advantages.values)
    read = read_adapter(policy, base.model)
    weights = LoraWeights(read.spec, read.tensors)
    whole, *parts = (StepMetrics(data, objective) for _ in range(3))
    for metrics in (whole, *parts):
        metrics.losses.append(0.0)
        metrics.grad_norms.append(1.5)
    random = torch.Generator().manual_seed(0)
    assert len(step.micro_batches) == 3
    for micro_batch, part in zip(step.micro_batches, cycle(parts), strict=False):
        now, entropy = logprobs(base, weights, micro_batch)
        inputs = LossInputs(
            now,
            now + torch.randn(len(now), generator=random) * 0.5,
            micro_batch.sampler,
            micro_batch.advantage,
            micro_batch.rollout,
            micro_batch.completion,
            micro_batch.position,
            step.rollouts,
        )
        outputs = objective.loss(inputs, given.loss)
        for metrics in (whole, part):
            metrics.add(outputs, entropy, micro_batch)
            metrics.gap.add(inputs.old.detach(), micro_batch)
            metrics.losses[0] += float(outputs.total)
    parts[0].merge(parts[1])
    one, merged = (m.report(advantages, 0.1, 7, 2.0) for m in (whole, parts[0]))
    assert merged.pop("kl") is one.pop("kl") is None
    assert merged == pytest.approx(one, rel=1e-12)
    assert one["clip_ratio/low_mean"] > 0 and one["clip_ratio/high_mean"] > 0
