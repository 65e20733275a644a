"""Where the logprobs from before the first optimizer step come from: a pass of the trainer, or the sampler."""

import hashlib

import pytest
import torch
import train_reference as reference
from test_drift import long_forest
from train_tiny import sample_logprobs, train

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.train import operation
from hone_worker.train.forward import logprobs
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data


@pytest.fixture
def forest(policy):
    forest = long_forest()
    sample_logprobs(forest, policy, noise=0.0)
    return forest


def options(tmp_path, policy, forest, **changes):
    leaves = forest.leaves()
    plan = [[leaves[:6], leaves[6:12]], [leaves[12:18], leaves[18:]]]
    given = {"staging": str(tmp_path / "staging"), "checkpoint": str(policy), "plan": plan}
    optimizer = {"learningRate": 0.03, "warmupSteps": 0}
    loss = {"normalizerTokens": 1, "measureKl": False}
    return reference.config(**{**given, "packing": "tree", "optimizer": optimizer, "loss": loss, **changes})


@pytest.fixture
def forwards(monkeypatch):
    """How many forwards have no gradient."""
    seen = []

    def counted(*args, **kwargs):
        seen.append(torch.is_grad_enabled())
        return logprobs(*args, **kwargs)

    monkeypatch.setattr(operation, "logprobs", counted)
    return lambda: seen.count(False)


def sampled_exactly(base, policy, forest, given):
    """Sampler logprobs are the trainer's own, to the bit."""
    data, config = parse_step_data(reference.body(forest, given))
    read = read_adapter(policy, base.model)
    weights = LoraWeights(read.spec, read.tensors)
    found = data.logprobs.clone()
    for step in mini_batches(data, config, torch.ones(data.completions, dtype=torch.float64)):
        for micro_batch in step.micro_batches:
            with torch.no_grad():
                found[micro_batch.position] = logprobs(base, weights, micro_batch)[0]
    offsets = data.completion_offsets.tolist()
    for c, completion in enumerate(forest.completions):
        completion.logprobs = found[offsets[c] : offsets[c + 1]].tolist()


@pytest.mark.parametrize(
    "loss",
    [
        {"normalizerTokens": 1},
        {"type": "grpo", "samplerCorrection": "token_mask", "topEntropyQuantile": 0.6},
        {"type": "gspo", "epsilonLow": 0.01, "epsilonHigh": 0.01},
        {"type": "dapo", "beta": 0.1, "klIn": "reward"},
        {"type": "vespo"},
    ],
)
def test_without_a_gap_the_samplers_give_the_same_bytes(base, policy, forest, tmp_path, loss, forwards):
    # Where the KL weighs in, it is measured in any case.
    unmeasured = {} if loss.get("beta") else {"measureKl": False}
    given = options(tmp_path, policy, forest, loss={**unmeasured, **loss})
    sampled_exactly(base, policy, forest, given)
    seen = []
    for mode in ("trainer", "auto"):
        staging = tmp_path / mode
        before = forwards()
        metrics = train(base, forest, {**given, "staging": str(staging), "old_logprobs": mode})["metrics"]
        digest = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in staging.iterdir()}
        seen.append((digest, metrics, forwards() - before))
    (one, trainer, full), (other, sampler, skipped) = seen
    assert one == other
    assert trainer["old_logprobs_from_sampler"] == 0 and sampler["old_logprobs_from_sampler"] == 1
    assert sampler["sampling/sampling_logp_difference/max"] == 0
    # The pass is four forwards, and the first one decides. The entropy's at the first optimizer step are the pass's.
    entropy = "topEntropyQuantile" in loss
    assert full - skipped == (1 if entropy else 3)
    assert trainer["loss"] == sampler["loss"] and trainer["grad_norm"] == sampler["grad_norm"]
    assert trainer["entropy"] == sampler["entropy"]


@pytest.mark.parametrize("why", ["gap", "outlier", "stale", "truncated", "mask", "old plan"])
def test_the_trainer_computes_them_where_the_samplers_will_not_do(
    base, policy, forest, tmp_path, why, forwards
):
    given = options(tmp_path, policy, forest, step=3, old_logprobs="auto")
    for completion in forest.completions:
        completion.policy = 2
    if why == "gap":
        sample_logprobs(forest, policy, noise=0.01)
    elif why == "outlier":
        first = forest.completions[0].logprobs
        first[-1] -= 0.02
    elif why == "stale":
        forest.completions[-1].policy = 1
    elif why == "truncated":
        forest.completions[-1].truncated = 1
    elif why == "mask":
        given["loss"] = {"mismatchMask": "token"}
    else:
        del given["old_logprobs"]
    metrics = train(base, forest, given)["metrics"]
    assert metrics["old_logprobs_from_sampler"] == 0
    assert forwards() >= 4


def test_the_gap_of_the_first_optimizer_step_is_measured_and_refused_where_it_is_large(
    base, policy, forest, tmp_path
):
    given = options(tmp_path, policy, forest, old_logprobs="auto", max_mismatch=0.1)
    # Not in the first micro-batch, which decides.
    late = forest.completions[2 * 8 + 1].logprobs
    late[-1] -= 0.5
    metrics = train(base, forest, given)["metrics"]
    assert metrics["old_logprobs_from_sampler"] == 1
    assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(0.5, rel=1e-3)
    late[-10:] = [x - 9 for x in late[-10:]]
    with pytest.raises(Exception, match="differ from the trainer's") as caught:
        train(base, forest, {**given, "staging": str(tmp_path / "again")})
    assert caught.value.code == "sampler_mismatch"


def test_one_optimizer_step_asks_for_none(base, policy, forest, tmp_path, forwards):
    plan = [[forest.leaves()]]
    given = options(tmp_path, policy, forest, plan=plan, old_logprobs="auto")
    assert train(base, forest, given)["metrics"]["old_logprobs_from_sampler"] is None
    assert forwards() == 0


def test_the_entropies_of_the_first_optimizer_step_are_those_of_the_old_pass(
    base, policy, forest, tmp_path, forwards
):
    loss = {"type": "dapo", "topEntropyQuantile": 0.4, "measureKl": False}
    train(base, forest, options(tmp_path, policy, forest, loss=loss))
    # Four of the pass, two of the second optimizer step; the loss's own have a gradient.
    assert forwards() == 6
