"""The operation as a whole: what it writes, what it refuses, and that it does the same twice."""

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import train_reference as reference
from engine_process import LIMIT
from safetensors.torch import load_file, save_file
from train_tiny import (
    ByHand,
    grown_forest,
    last_gradient,
    peft_parameters,
    sample_logprobs,
    save_policy,
    tiny_base,
    train,
    trained_adapter,
    under_peft,
)

from hone_worker.base.adapter_files import fresh_adapter, read_adapter
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data

FILES = ["adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "trainer.json"]


@pytest.fixture
def forest(policy):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.01)
    return forest


def options(folder: Path, policy: Path, forest, **changes) -> dict:
    leaves = forest.leaves()
    plan = [[leaves[:4], leaves[4:]]]
    return reference.config(
        **{"staging": str(folder / "staging"), "checkpoint": str(policy), "plan": plan, **changes}
    )


def digests(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


def fails(base, forest, given, aborted=lambda: False) -> HoneWorkerError:
    data, config = parse_step_data(reference.body(forest, given))
    with pytest.raises(HoneWorkerError) as caught:
        list(train_steps(base, data, config, aborted))
    assert os.listdir(given["staging"]) == []
    return caught.value


class Clock:
    """A second for each look at it."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 1
        return self.now


def test_an_operation_tells_each_stage_and_writes_what_it_names(base, policy, forest, tmp_path, monkeypatch):
    given = options(tmp_path, policy, forest, step=1, seed=5)
    data, config = parse_step_data(reference.body(forest, given))
    clock = Clock()
    monkeypatch.setattr("hone_worker.train.watch.time", clock)
    events = []
    for event in train_steps(base, data, config, lambda: False):
        events.append(event)
        # Others work meanwhile.
        clock.now += 1000
    stages = [e["stage"] for e in events if e["event"] == "stage"]
    assert stages == ["load", "reference_logprobs", "forward_backward", "optimizer", "checkpoint"]
    assert all(e["seconds"] > 0 for e in events if e["event"] == "stage")
    steps = [(e["done"], e["total"]) for e in events if e["event"] == "microbatch"]
    assert steps == [(1, 2), (2, 2)]
    result = events[-1]
    assert result["event"] == "result" and result["files"] == FILES
    assert sorted(os.listdir(tmp_path / "staging")) == FILES
    trainer = json.loads((tmp_path / "staging" / "trainer.json").read_text())
    assert {k: v for k, v in trainer.items() if k != "num_tokens"} == {
        "step": 1,
        "optimizer_steps": 1,
        "seed": 5,
    }

    metrics = result["metrics"]
    assert metrics["reward"] == pytest.approx(sum(forest.rewards) / 8)
    assert metrics["frac_reward_zero_std"] == pytest.approx(1 / 3)
    assert metrics["learning_rate"] == pytest.approx(0.01 / 5)
    assert metrics["num_tokens"] == trainer["num_tokens"]
    for name in ("low_mean", "low_min", "high_mean", "high_max", "region_mean"):
        assert metrics[f"clip_ratio/{name}"] == 0
    assert metrics["kl"] > 0 and 0 < metrics["kl_tokens"] < metrics["train_tokens"]
    assert metrics["grad_clip_ratio"] == 0 and metrics["max_grad_norm"] == 1
    assert all(v is None or math.isfinite(v) for v in metrics.values())
    # What is between the last stage and the result, and nothing of what others did.
    total = sum(e["seconds"] for e in events if e["event"] == "stage")
    assert total < metrics["step_time"] < total + 5


def test_several_optimizer_steps_tell_the_stage_of_the_old_logprobs(base, policy, forest, tmp_path):
    leaves = forest.leaves()
    given = options(tmp_path, policy, forest, plan=[[leaves[::2]], [leaves[1::2]]])
    data, config = parse_step_data(reference.body(forest, given))
    events = list(train_steps(base, data, config, lambda: False))
    stages = [e["stage"] for e in events if e["event"] == "stage"]
    assert stages == [
        *("load", "old_logprobs", "reference_logprobs", "forward_backward", "optimizer", "checkpoint")
    ]
    trainer = json.loads((tmp_path / "staging" / "trainer.json").read_text())
    assert trainer["optimizer_steps"] == 2


def test_sampler_metrics_are_measured_on_the_policy_that_is_trained(base, policy, forest, tmp_path):
    for c in forest.completions[4:]:
        c.policy = 2
    hand = ByHand(policy, forest, {})
    hand.remember_start()
    current = [
        (hand.start[c, k], forest.completions[c].logprobs[k])
        for c, k in reference.trained_tokens(forest)
        if forest.completions[c].policy == 2
    ]
    metrics = train(base, forest, options(tmp_path, policy, forest, step=3))["metrics"]
    gaps = [abs(a - b) for a, b in current]
    ratios = [math.exp(a - b) for a, b in current]
    name = "sampling/sampling_logp_difference"
    assert metrics[f"{name}/mean"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-3)
    assert metrics[f"{name}/max"] == pytest.approx(max(gaps), rel=1e-3)
    name = "sampling/importance_sampling_ratio"
    assert metrics[f"{name}/mean"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-5)
    assert metrics[f"{name}/min"] == pytest.approx(min(ratios), rel=1e-5)
    assert metrics[f"{name}/max"] == pytest.approx(max(ratios), rel=1e-5)


def test_without_completions_of_that_policy_the_sampler_metrics_are_null(base, policy, forest, tmp_path):
    given = options(tmp_path, policy, forest, step=4, max_mismatch=1e-9)
    metrics = train(base, forest, given)["metrics"]
    assert metrics["sampling/sampling_logp_difference/mean"] is None
    assert metrics["sampling/importance_sampling_ratio/max"] is None


def test_a_sampler_that_differs_is_refused(base, policy, forest, tmp_path):
    sample_logprobs(forest, policy, noise=0.5)
    leaves = forest.leaves()
    for plan in ([[leaves]], [[leaves[::2]], [leaves[1::2]]]):
        given = options(tmp_path, policy, forest, max_mismatch=0.1, plan=plan)
        assert fails(base, forest, given).code == "sampler_mismatch"


def test_a_truncated_distribution_is_trained_and_not_compared(base, policy, forest, tmp_path):
    sample_logprobs(forest, policy, noise=0.5)
    given = options(tmp_path, policy, forest, max_mismatch=0.1)
    for completion in forest.completions:
        completion.truncated = 1
    metrics = train(base, forest, given)["metrics"]
    assert metrics["sampling/sampling_logp_difference/mean"] is None
    assert metrics["grad_norm"] > 0


def test_the_checkpoint_loads_in_peft_and_gives_the_same_logits(base, policy, forest, tmp_path):
    train(base, forest, options(tmp_path, policy, forest))
    sequence = torch.tensor([forest.sequence(2)])
    weights = read_adapter(tmp_path / "staging", base.model)
    with torch.no_grad():
        with base.router.single(weights):
            ours = base.model(sequence, use_cache=False).logits
        theirs = under_peft(tmp_path / "staging")(sequence, use_cache=False).logits
        bare = base.model(sequence, use_cache=False).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (ours - bare).abs().max() > 0.01


def test_the_same_operation_gives_the_same_bytes_also_in_another_process(base, policy, forest, tmp_path):
    given = options(tmp_path, policy, forest)
    before = torch.get_rng_state()
    train(base, forest, given)
    assert torch.equal(torch.get_rng_state(), before)
    ours = digests(tmp_path / "staging")
    again = {**given, "staging": str(tmp_path / "again")}
    torch.rand(3)
    train(base, forest, again)
    assert digests(tmp_path / "again") == ours

    other = {**given, "staging": str(tmp_path / "other")}
    (tmp_path / "batch").write_bytes(reference.body(forest, other))
    script = (
        "import sys, torch; torch.manual_seed(99); from train_tiny import tiny_base;"
        "from hone_worker.train.step_data import parse_step_data; from hone_worker.train.operation import train_steps;"
        "data, config = parse_step_data(open(sys.argv[1], 'rb').read());"
        "list(train_steps(tiny_base(), data, config, lambda: False))"
    )
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "PYTHONHASHSEED": "77"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "batch")], check=True, env=env, timeout=LIMIT
    )
    assert digests(tmp_path / "other") == ours


def test_other_work_between_micro_batches_changes_nothing(base, policy, forest, tmp_path):
    given = options(tmp_path, policy, forest)
    train(base, forest, given)
    sequence = torch.tensor([forest.sequence(0)])
    with torch.no_grad():
        bare = base.model(sequence, use_cache=False).logits
    data, config = parse_step_data(reference.body(forest, {**given, "staging": str(tmp_path / "again")}))
    with torch.no_grad():
        for _ in train_steps(base, data, config, lambda: False):
            # What decodes here must neither see the trained adapter nor disturb it.
            assert torch.equal(base.model(sequence, use_cache=False).logits, bare)
    assert digests(tmp_path / "again") == digests(tmp_path / "staging")


def test_the_policy_that_is_trained_from_is_left_as_it_was(base, policy, forest, tmp_path):
    before = digests(policy), [p.clone() for p in base.model.parameters()]
    train(base, forest, options(tmp_path, policy, forest))
    assert digests(policy) == before[0]
    for now, then in zip(base.model.parameters(), before[1], strict=True):
        assert torch.equal(now, then) and now.grad is None


def test_three_operations_are_one_adamw_with_warm_up(base, policy, forest, tmp_path):
    """Moments and counters travel in the checkpoint: three operations equal three steps in memory."""
    optimizer = {"learning_rate": 0.03, "eps": 1e-3, "weight_decay": 0.1, "warmup_steps": 2}
    hand = ByHand(policy, forest, {})
    parameters = peft_parameters(hand.model)
    adam = torch.optim.AdamW(parameters.values(), lr=1, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.1)
    checkpoint, rates = policy, []
    for step in (1, 2, 3):
        staging = tmp_path / f"n{step}"
        given = options(tmp_path, checkpoint, forest, step=step, optimizer=optimizer, staging=str(staging))
        rates.append(train(base, forest, given)["metrics"]["learning_rate"])
        checkpoint = staging

        hand.backward(forest.leaves(), len(forest.rewards), set())
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for group in adam.param_groups:
            group["lr"] = rates[-1]
        adam.step()
        adam.zero_grad()
    assert rates == pytest.approx([0.015, 0.03, 0.03])
    assert json.loads((checkpoint / "trainer.json").read_text())["optimizer_steps"] == 3
    ours = read_adapter(checkpoint, base.model).tensors
    start = read_adapter(policy, base.model).tensors
    for path, pair in ours.items():
        for side, tensor, old in zip("AB", pair, start[path], strict=True):
            moved = parameters[f"{path}.lora_{side}.weight"].detach() - old
            assert moved.norm() > 1e-3
            assert ((tensor - old) - moved).norm() / moved.norm() < 1e-3


def test_a_fresh_adapter_is_trained_from(base, tmp_path):
    policy = save_policy(tmp_path / "fresh", base, fresh_adapter(base.model, trained_adapter(base).spec, 1))
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0)
    metrics = train(base, forest, options(tmp_path, policy, forest, max_mismatch=1e-4))["metrics"]
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-4
    gradients = last_gradient(tmp_path / "staging", 0.9)
    for name, gradient in gradients.items():
        assert (gradient.norm() > 0) == ("lora_B" in name), name


def test_an_aborted_operation_leaves_nothing(base, policy, forest, tmp_path):
    given = options(tmp_path, policy, forest)
    data, config = parse_step_data(reference.body(forest, given))
    total = len(list(train_steps(base, data, config, lambda: False)))
    for count in range(total):
        staging = tmp_path / f"abort{count}"
        data, config = parse_step_data(reference.body(forest, {**given, "staging": str(staging)}))
        told: list[str] = []
        flag = {"aborted": False}
        events = train_steps(base, data, config, lambda flag=flag: flag["aborted"])
        try:
            for event in events:
                told.append(event["event"])
                flag["aborted"] = len(told) > count
        except HoneWorkerError as error:
            assert error.code == "aborted"
            assert os.listdir(staging) == []
        else:
            # After its last micro-batch stage there is only the result left to tell.
            assert told[-1] == "result" and count >= total - 1


def test_a_closed_generator_leaves_nothing_but_a_told_result_stays(base, policy, forest, tmp_path):
    for stop_at, expected in (("checkpoint", []), ("result", FILES)):
        staging = tmp_path / stop_at
        given = options(tmp_path, policy, forest, staging=str(staging))
        data, config = parse_step_data(reference.body(forest, given))
        events = train_steps(base, data, config, lambda: False)
        for event in events:
            if event.get("stage") == stop_at or event["event"] == stop_at:
                break
        assert sorted(os.listdir(staging)) == FILES
        events.close()
        assert sorted(os.listdir(staging)) == expected


def test_a_loss_or_gradient_that_is_not_finite_writes_nothing(base, policy, forest, tmp_path):
    given = options(tmp_path, policy, forest)
    # Finite weights whose product is not: the adapter passes every check of its file.
    tensors = load_file(policy / "adapter_model.safetensors")
    for name in tensors:
        if ".layers.1." in name:
            tensors[name] = torch.full_like(tensors[name], 1e30)
    save_file(tensors, policy / "adapter_model.safetensors")
    assert fails(base, forest, given).code == "non_finite"
    leaves = forest.leaves()
    given["plan"] = [[leaves[::2]], [leaves[1::2]]]
    assert fails(base, forest, given).code == "non_finite"


def test_a_gradient_alone_that_overflows_is_refused(base, policy, forest, tmp_path):
    forest.rewards[0] = 1e37
    given = options(tmp_path, policy, forest, loss={"normalizer_tokens": 1})
    assert fails(base, forest, given).code == "non_finite"


def test_what_cannot_be_trained_is_refused_with_its_reason(base, policy, forest, tmp_path):
    assert fails(base, forest, options(tmp_path, policy, forest, lora={"r": 8, "alpha": 8.0})).code == (
        "lora_mismatch"
    )
    missing = options(tmp_path, policy, forest, checkpoint=str(tmp_path / "nowhere"))
    assert fails(base, forest, missing).code == "adapter_not_found"
    forest.completions[0].suffix[0] = 40
    assert fails(base, forest, options(tmp_path, policy, forest)).param == "tokens"
    forest.completions[0].suffix[0] = 1
    (policy / "trainer.json").write_text('{"optimizer_steps": -1}')
    assert fails(base, forest, options(tmp_path, policy, forest)).code == "bad_checkpoint"
    (policy / "trainer.json").unlink()
    save_file({"updates": torch.tensor(1)}, policy / "optimizer.safetensors")
    assert fails(base, forest, options(tmp_path, policy, forest)).code == "bad_checkpoint"
    (policy / "optimizer.safetensors").unlink()
    forest.rewards = [0.1] * len(forest.rewards)
    assert fails(base, forest, options(tmp_path, policy, forest)).code == "nothing_to_train"


def test_a_sequence_beyond_the_base_is_refused(policy, forest, tmp_path):

    short = replace(tiny_base(), max_model_len=19)
    assert max(len(forest.sequence(leaf)) for leaf in forest.leaves()) > 20
    assert fails(short, forest, options(tmp_path, policy, forest)).code == "too_long"


def test_a_staging_folder_in_use_is_left_alone(base, policy, forest, tmp_path):
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "precious").write_text("x")
    with pytest.raises(HoneWorkerError) as caught:
        train(base, forest, options(tmp_path, policy, forest))
    assert caught.value.code == "bad_staging"
    assert (tmp_path / "staging" / "precious").exists()
