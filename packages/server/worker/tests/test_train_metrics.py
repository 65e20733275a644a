"""The metrics of a step that count: lengths of completions, and tokens over the life of a model."""

import pytest
import train_reference as reference
from train_tiny import grown_forest, sample_logprobs, train


@pytest.fixture
def forest(policy):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.01)
    return forest


def options(tmp_path, policy, forest, **changes) -> dict:
    leaves = forest.leaves()
    plan = [[leaves[:4], leaves[4:]]]
    staging = str(tmp_path / "staging")
    return reference.config(**{"staging": staging, "checkpoint": str(policy), "plan": plan, **changes})


def test_lengths_are_those_of_the_trained_rollouts(base, policy, forest, tmp_path):
    # 18 sampled tokens and 4 of another conversation, of which the last is the end; the context counts nowhere.
    forest.completions[1].cut = 1
    # The second rollout's last answer, and one of group 2's, were cut short.
    forest.completions[7].cut = 1
    forest.completions[14].cut = 1
    # Rollouts: 22, 18, 18, 5, 5 (equal rewards, yet trainable), 6, 6; the last one is masked.
    metrics = train(base, forest, options(tmp_path, policy, forest))["metrics"]
    name = "completions"
    assert metrics[f"{name}/mean_length"] == pytest.approx((22 + 18 + 18 + 5 + 5 + 6 + 6) / 7)
    assert metrics[f"{name}/min_length"] == 5 and metrics[f"{name}/max_length"] == 22
    assert metrics[f"{name}/clipped_ratio"] == pytest.approx(2 / 7)
    assert metrics[f"{name}/mean_terminated_length"] == pytest.approx((22 + 18 + 5 + 5 + 6) / 5)
    assert metrics[f"{name}/min_terminated_length"] == 5
    assert metrics[f"{name}/max_terminated_length"] == 22


def test_without_a_rollout_that_ended_by_itself_there_is_no_such_length(base, policy, forest, tmp_path):
    for completion in forest.completions:
        completion.cut = 1
    metrics = train(base, forest, options(tmp_path, policy, forest))["metrics"]
    assert metrics["completions/clipped_ratio"] == 1
    assert all(metrics[f"completions/{n}_terminated_length"] is None for n in ("mean", "min", "max"))


def test_num_tokens_counts_over_the_life_of_the_model(base, policy, forest, tmp_path):
    # Sampled, and the prompts that the rollouts' conversations begin with (two of the first rollout's).
    step = (22 + 18 + 18 + 5 + 5 + 6 + 6) + (6 + 3 + 3 + 6 + 6) + (4 + 4) + (5 + 5)
    checkpoint = policy
    for number in (1, 2, 3):
        staging = tmp_path / f"p{number}"
        given = options(tmp_path, checkpoint, forest, step=number, staging=str(staging))
        assert train(base, forest, given)["metrics"]["num_tokens"] == number * step
        checkpoint = staging
    # One that an earlier release trained has no count.
    (checkpoint / "trainer.json").write_text('{"optimizer_steps": 3, "seed": 0, "step": 3}')
    given = options(tmp_path, checkpoint, forest, step=4, staging=str(tmp_path / "p4"))
    assert train(base, forest, given)["metrics"]["num_tokens"] == step
