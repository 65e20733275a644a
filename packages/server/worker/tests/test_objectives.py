"""Objectives are found by name, get what a loss may look at, and leave sums that merge."""

import json
import math
from itertools import cycle
from typing import Literal

import pytest
import torch
import train_reference as reference
from safetensors.torch import save
from train_tiny import ByHand, loss_inputs

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.advantages import Advantages
from hone_worker.train.forward import logprobs
from hone_worker.train.metrics import StepMetrics
from hone_worker.train.objectives import OBJECTIVES, objective_of
from hone_worker.train.objectives.objective import LossOutputs, Needs, Objective
from hone_worker.train.objectives.policy_gradient import PolicyGradient, loss
from hone_worker.train.operation import train_steps
from hone_worker.train.options import Options
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_config, parse_step_data
from hone_worker.train.token_logprobs import token_logprobs


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
        ({"loss": {"type": "policy_gradient", "delta": 2}}, "loss.delta"),
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
        inputs = loss_inputs(*tokens, where, 4, **weights)
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
    (step,) = mini_batches(data, given, advantages.values[data.completion_rollout.long()])
    read = read_adapter(policy, base.model)
    weights = LoraWeights(read.spec, read.tensors)
    whole, *parts = (StepMetrics(data, objective) for _ in range(3))
    for metrics in (whole, *parts):
        metrics.losses.append(0.0)
        metrics.grad_norms.append(1.5)
        metrics.max_grad_norm, metrics.old_from_sampler = 1.0, False
    random = torch.Generator().manual_seed(0)
    assert len(step.micro_batches) == 3
    for micro_batch, part in zip(step.micro_batches, cycle(parts), strict=False):
        now, entropy = logprobs(base, weights, micro_batch)
        inputs = loss_inputs(
            now,
            now + torch.randn(len(now), generator=random) * 0.5,
            micro_batch.sampler,
            micro_batch.advantage,
            micro_batch.rollout,
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


@pytest.mark.parametrize("packing", ["rows", "tree"])
def test_what_an_objective_needs_is_computed_for_it(base, policy, forest, tmp_path, monkeypatch, packing):
    """The base's logprobs, the drift from it, weights, the counts of the step, and a gradient of the entropy."""
    seen = []

    def total(inputs, _options):
        seen.append(inputs)
        weighed = inputs.weights * (0.5 * inputs.entropies - inputs.logprobs * inputs.reference)
        return LossOutputs(weighed.sum() / inputs.tokens, {})

    objective = Objective(
        Likelihood,
        lambda rewards, groups, _options: Advantages(torch.ones_like(rewards), 0, len(groups.unique())),
        total,
        lambda sums: {},
        lambda _options: Needs(reference=True, entropy_gradient=True, top_entropy=0.25),
    )
    monkeypatch.setitem(OBJECTIVES, objective.name, objective)
    weights = torch.arange(len(forest.completions)) % 3 / 2
    tensors = {**forest.tensors(), "completion_weight": weights}
    given = options(tmp_path, policy, forest, packing=packing)
    data, config = parse_step_data(save(tensors, metadata={"config": json.dumps(given)}))
    config = config.model_copy(update={"loss": Likelihood()})
    metrics = list(train_steps(base, data, config, lambda: False))[-1]["metrics"]

    counted = sum(weights[c] for c, _ in reference.trained_tokens(forest))
    bare, hand = ByHand(policy, forest, {}), ByHand(policy, forest, {})
    hand.remember_start()
    with bare.model.disable_adapter():
        bare.remember_start()
    found = {int(t): x for i in seen for t, x in zip(i.token, i.reference, strict=True)}
    starts = data.completion_offsets.tolist()
    assert len(found) == len(reference.trained_tokens(forest))
    for c, k in reference.trained_tokens(forest):
        assert found[starts[c] + k] == pytest.approx(bare.start[c, k], rel=1e-4, abs=1e-5)
    gaps = [bare.start[t] - hand.start[t] for t in reference.trained_tokens(forest)]
    assert metrics["kl"] == pytest.approx(sum(math.exp(g) - g - 1 for g in gaps) / len(gaps), rel=1e-3)
    whole = torch.cat([i.entropies.detach() for i in seen])
    weight = torch.cat([i.weights for i in seen])
    high = (whole >= whole[weight > 0].quantile(0.75)) & (weight > 0)
    assert torch.equal(torch.cat([i.high_entropy for i in seen]), high) and 0 < high.sum() < len(high)
    for inputs in seen:
        assert inputs.tokens == inputs.mean_tokens == pytest.approx(float(counted))
        assert float(inputs.rollout_tokens.sum()) == pytest.approx(float(counted))
        assert inputs.entropy_tokens == pytest.approx(float(weight[high].sum()))


def test_an_entropy_has_the_gradient_that_finite_differences_find():
    random = torch.Generator().manual_seed(2)
    head = torch.nn.Linear(5, 9).double()
    hidden = torch.randn(4, 5, generator=random, dtype=torch.float64).requires_grad_()
    target = torch.randint(9, (4,), generator=random)
    temperature = torch.tensor([1.0, 0.7, 1.3, 0.0])

    def both(x):
        return token_logprobs(x, head, target, temperature, softcap=3.0, scale=0.8, entropy_gradient=True)

    assert torch.autograd.gradcheck(both, (hidden,))


def test_whole_rollouts_are_not_parted_where_an_objective_asks_for_them(policy, forest, tmp_path):
    leaves = forest.leaves()
    given = options(tmp_path, policy, forest)
    data, config = parse_step_data(reference.body(forest, {**given, "plan": [[leaves[:1], leaves[1:]]]}))
    advantages = torch.ones(data.completions, dtype=torch.float64)
    assert len(mini_batches(data, config, advantages)[0].micro_batches) == 2
    with pytest.raises(HoneWorkerError, match="parts the completions of rollout 0") as caught:
        mini_batches(data, config, advantages, whole_rollouts=True)
    assert (caught.value.code, caught.value.param) == ("bad_batch", "plan")

    # Where the base takes no trees, padded rows are cut between rollouts alone.
    data, config = parse_step_data(reference.body(forest, {**given, "plan": [[leaves]], "packing": "tree"}))
    counts = []
    for whole in (False, True):
        (step,) = mini_batches(data, config, advantages, packable=False, whole_rollouts=whole)
        counts.append(len(step.micro_batches))
        owners = [set(m.rollout.tolist()) for m in step.micro_batches]
        assert whole is (sum(map(len, owners)) == len(set().union(*owners)))
    assert min(counts) > 1


@pytest.mark.parametrize("weight", [[-1.0], [float("inf")], [1.0, 1.0]])
def test_weights_of_the_step_data_are_checked(policy, forest, tmp_path, weight):
    tensors = {**forest.tensors(), "completion_weight": torch.ones(len(forest.completions))}
    tensors["completion_weight"][0] = weight[0]
    if len(weight) > 1:
        tensors["completion_weight"] = tensors["completion_weight"][:2].contiguous()
    config = json.dumps(options(tmp_path, policy, forest))
    with pytest.raises(HoneWorkerError) as caught:
        parse_step_data(save(tensors, metadata={"config": config}))
    assert (caught.value.code, caught.value.param) == ("bad_batch", "completion_weight")
