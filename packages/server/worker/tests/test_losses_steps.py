"""A real step of every objective, on the tiny base with a trained adapter: finite, and the same bytes twice."""

import hashlib
import json
import math

import pytest
import torch
import train_reference as reference
from safetensors.torch import save
from train_tiny import grown_forest, last_gradient, relative_difference, sample_logprobs

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data

PENALTIES = {"beta": 0.1, "entropyCoef": 0.01, "topEntropyQuantile": 0.6, "offPolicyMaskThreshold": 1.0}
#: Every option that makes the operation compute something else.
CHANGES = {
    **{name: {} for name in ("dr_grpo", "bnpo", "gspo", "luspo", "cispo", "vespo")},
    "policy_gradient": {"mismatchMask": "sequence", "measureKl": True},
    "grpo": {**PENALTIES, "klEstimator": "k2", "mismatchMask": "sequence"},
    "dapo": {"beta": 0.1, "klIn": "reward", "scaleRewards": "batch", "std": "population"},
    "sapo": {"entropyCoef": 0.01, "importanceLevel": "sequence", "measureKl": True},
    "rloo": {"beta": 0.1, "normalizeAdvantages": True, "samplerCorrection": "sequence_truncate"},
    "importance_sampling": PENALTIES,
}
NAMES = list(CHANGES)


@pytest.fixture
def forest(policy):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.05)
    return forest


def config(tmp_path, policy, name, plan, **changes):
    loss = {"type": name, **CHANGES[name]}
    given = {
        "staging": str(tmp_path),
        "checkpoint": str(policy),
        "plan": plan,
        "loss": loss,
        "packing": "tree",
    }
    return reference.config(**{**given, **changes})


def step(base, forest, given, weights=None):
    tensors = forest.tensors() if weights is None else {**forest.tensors(), "completion_weight": weights}
    data, read = parse_step_data(save(tensors, metadata={"config": json.dumps(given)}))
    return list(train_steps(base, data, read, lambda: False))[-1]["metrics"]


def joined(units):
    return [leaf for unit in units for leaf in unit]


def by_rollout(forest):
    """Leaves, those of a rollout together."""
    owners = sorted({forest.completions[leaf].rollout for leaf in forest.leaves()})
    return [[i for i in forest.leaves() if forest.completions[i].rollout == owner] for owner in owners]


@pytest.mark.parametrize("name", NAMES)
def test_two_optimizer_steps_are_finite_and_give_the_same_bytes_again(base, policy, forest, tmp_path, name):
    units = by_rollout(forest)
    plan = [[units[0] + units[1], units[2]], [joined(units[3:])]]
    digests = []
    for folder in ("one", "two"):
        given = config(tmp_path / folder, policy, name, plan)
        metrics = step(base, forest, given, torch.arange(len(forest.completions)) % 2 + 0.5)
        torch.rand(3)
        digests.append(
            {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (tmp_path / folder).iterdir()}
        )
    assert digests[0] == digests[1] and len(digests[0]) == 4
    assert all(value is None or math.isfinite(value) for value in metrics.values())
    assert metrics["grad_norm"] > 0
    asked = CHANGES[name]
    # Of every token where it was asked for, of a sample otherwise.
    every = "beta" in asked or "measureKl" in asked
    assert metrics["kl"] is not None and (metrics["kl_tokens"] == metrics["train_tokens"]) is every
    expected = {
        "entropy": "topEntropyQuantile",
        "off_policy": "offPolicyMaskThreshold",
        "mismatch": "mismatchMask",
    }
    for mask, option in expected.items():
        assert (f"masked/{mask}" in metrics) is (option in asked)


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_and_padded_rows_have_the_gradient_of_one_packed_row(
    base, policy, forest, tmp_path, name
):
    units = by_rollout(forest)
    optimizer = {"learningRate": 0.01, "maxGradNorm": 1e9}
    gradients = []
    for folder, plan, packing in (
        ("whole", [[joined(units)]], "tree"),
        ("parts", [units], "tree"),
        ("rows", [units], "rows"),
    ):
        given = config(tmp_path / folder, policy, name, plan, optimizer=optimizer, packing=packing)
        step(base, forest, given)
        gradients.append(last_gradient(tmp_path / folder, 0.9))
    for other in gradients[1:]:
        assert relative_difference(other, gradients[0]) < 1e-5


def test_a_plan_that_parts_a_rollout_is_refused(base, policy, forest, tmp_path):
    leaves = forest.leaves()
    given = config(tmp_path / "staging", policy, "gspo", [[leaves[:1], leaves[1:]]])
    with pytest.raises(HoneWorkerError, match="parts the completions") as caught:
        step(base, forest, given)
    assert caught.value.code == "bad_batch"
