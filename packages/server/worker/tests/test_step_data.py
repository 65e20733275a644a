"""What the step data may hold, what is refused and by which name, and how a plan becomes rows."""

import json

import pytest
import torch
import train_reference as reference
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from train_reference import Completion, Forest

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.advantages import group_advantages
from hone_worker.train.objectives import LossOptions
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import OptimizerConfig, parse_step_data


def forest() -> Forest:
    """Two rollouts of a group: one of two turns with a branch, one of one turn; and a masked third."""
    f = Forest()
    one, two, three = f.rollout(1.0, 0), f.rollout(0.0, 0), f.rollout(0.5, 0, trainable=0)
    first = f.add(Completion([1, 2, 3, 4, 5], [0, 0, 0, 1, 1], one, logprobs=[0, 0, 0, -0.4, -0.5]))
    f.add(Completion([6, 7, 8], [0, 1, 1], one, first, temperature=0.5, logprobs=[0, -0.7, -0.8]))
    f.add(Completion([9, 10], [0, 1], one, first, policy=1, logprobs=[0, -1.0]))
    f.add(Completion([1, 2, 11, 12], [0, 0, 1, 1], two, logprobs=[0, 0, -1.1, -1.2]))
    f.add(Completion([1, 2, 13], [0, 0, 1], three, logprobs=[0, 0, -1.3]))
    return f


def options(**changes) -> dict:
    return reference.config(**{"step": 2, "plan": [[[1, 3], [2]]], **changes})


def refused(tensors=None, config=None, text=None) -> HoneWorkerError:
    given = forest().tensors()
    for name, tensor in (tensors or {}).items():
        if tensor is None:
            del given[name]
        else:
            given[name] = tensor
    text = json.dumps(config or options()) if text is None else text
    with pytest.raises(HoneWorkerError) as caught:
        parse_step_data(save(given, metadata={"config": text}))
    return caught.value


def test_a_good_batch_is_read_with_the_documented_defaults():
    data, config = parse_step_data(reference.body(forest(), options()))
    assert (data.completions, data.rollouts) == (5, 3)
    assert config.optimizer.betas == [0.9, 0.95] and config.optimizer.eps == 1e-16
    assert (config.optimizer.weight_decay, config.optimizer.max_grad_norm) == (0, 1.0)
    assert config.optimizer.warmup_steps == 5
    loss = config.loss
    assert (loss.epsilon_low, loss.epsilon_high, loss.sampler_correction_max) == (0.2, 0.2, 2)
    assert (loss.normalizer_tokens, loss.scale_rewards) == (None, "none")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"colour": 1}, "colour"),
        ({"optimizer": {"learning_rate": 1e-3, "momentum": 0.9}}, "optimizer.momentum"),
        ({"loss": {"kl": 0.1}}, "loss.kl"),
        ({"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}, "lora.dropout"),
        ({"loss": {"scale_rewards": "all"}}, "loss.scale_rewards"),
        ({"optimizer": {"learning_rate": "1e-3"}}, "optimizer.learning_rate"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate"),
        ({"step": 0}, "step"),
        ({"plan": [[["1"]]]}, "plan.0.0.0"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(change, name):
    error = refused(config=options(**change))
    assert (error.code, error.param) == ("bad_config", name)
    assert f"`{name}`" in str(error)


def test_a_missing_option_is_refused_by_its_name():
    config = options()
    del config["staging"]
    assert refused(config=config).param == "staging"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampled", None),
        ("colour", torch.zeros(3)),
        ("tokens", torch.arange(17)),
        ("tokens", torch.full((17,), -1, dtype=torch.int32)),
        ("sampled", torch.zeros(16, dtype=torch.uint8)),
        ("sampled", torch.full((17,), 2, dtype=torch.uint8)),
        ("sampled", torch.ones(17, dtype=torch.uint8)),
        ("logprobs", torch.full((17,), float("nan"))),
        ("logprobs", torch.full((17,), 0.5)),
        ("completion_offsets", torch.tensor([0, 5, 8, 10, 14, 16])),
        ("completion_offsets", torch.tensor([0, 8, 5, 10, 14, 17])),
        ("completion_parent", torch.tensor([-1, 1, 0, -1, -1], dtype=torch.int32)),
        ("completion_parent", torch.tensor([-1, 0, 0, -2, -1], dtype=torch.int32)),
        ("completion_rollout", torch.tensor([0, 0, 0, 1, 3], dtype=torch.int32)),
        ("completion_temperature", torch.tensor([1, 1, 1, 1, -0.5])),
        ("completion_policy", torch.tensor([0, 0, 0, 2, 0], dtype=torch.int32)),
        ("rollout_reward", torch.tensor([0, 1, float("nan")], dtype=torch.float64)),
        ("rollout_reward", torch.tensor([[0, 1, 2]], dtype=torch.float64)),
    ],
)
def test_a_wrong_tensor_is_refused_by_its_name(name, value):
    error = refused({name: value})
    assert (error.code, error.param) == ("bad_batch", name)


@pytest.mark.parametrize("plan", [[[[0, 3]]], [[[1, 1]]], [[[1], [1]]], [[[7]]], [[[-1]]], [[[]]], [[]]])
def test_a_wrong_plan_is_refused(plan):
    assert refused(config=options(plan=plan)).param == "plan"


def test_what_is_no_safetensors_file_is_refused():
    for junk in (b"", b"hello", b"\xff" * 64, reference.body(forest(), options())[:-3]):
        with pytest.raises(HoneWorkerError) as caught:
            parse_step_data(junk)
        assert caught.value.code == "bad_batch"


def planned(plan, f=None, **changes):
    f = f or forest()
    data, config = parse_step_data(reference.body(f, options(plan=plan, **changes)))
    advantages = group_advantages(data.rollout_reward, data.rollout_group, config.loss.scale_rewards)
    return mini_batches(data, config, advantages.values[data.completion_rollout.long()]), data


def test_rows_hold_whole_paths_and_a_shared_token_is_trained_once_in_the_first_leaf():
    (step,), data = planned([[[1, 3], [2]]])
    first, second = step.micro_batches
    # The last trained token itself is not fed: nothing is predicted from it.
    assert first.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7], [1, 2, 11, 0, 0, 0, 0]]
    assert first.target.tolist() == [4, 5, 7, 8, 11, 12]
    assert [(r, c) for r, c in zip(first.row.tolist(), first.column.tolist(), strict=True)] == [
        (0, 2),
        (0, 3),
        (0, 5),
        (0, 6),
        (1, 1),
        (1, 2),
    ]
    torch.testing.assert_close(first.sampler, torch.tensor([-0.4, -0.5, -0.7, -0.8, -1.1, -1.2]))
    assert first.temperature.tolist() == [1, 1, 0.5, 0.5, 1, 1]
    assert first.advantage.tolist() == [0.5, 0.5, 0.5, 0.5, -0.5, -0.5]
    assert first.tokens == 10
    assert second.input_ids.tolist() == [[1, 2, 3, 4, 5, 9]]
    assert second.target.tolist() == [10] and second.comparable.tolist() == [True]
    assert not first.comparable.any()
    # R counts the masked rollout.
    assert step.rollouts == 3 and step.signal
    assert data.tokens[first.position].tolist() == first.target.tolist()


def test_the_order_of_the_plan_decides_which_leaf_trains_a_shared_token():
    (step,), _ = planned([[[2], [1, 3]]])
    assert step.micro_batches[0].target.tolist() == [4, 5, 10]
    assert step.micro_batches[1].target.tolist() == [7, 8, 11, 12]


def test_rollouts_of_mini_batches_add_up_to_those_of_the_batch():
    steps, _ = planned([[[1, 2]], [[3]]])
    assert [step.rollouts for step in steps] == [1.5, 1.5]


def test_context_of_an_untrainable_completion_is_not_trained():
    f = forest()
    f.completions[0].trainable = 0
    (step,), _ = planned([[[1, 2, 3]]], f)
    assert step.micro_batches[0].target.tolist() == [7, 8, 10, 11, 12]


def test_a_leaf_with_nothing_to_train_costs_nothing():
    (step,), _ = planned([[[1, 2], [4], [3]]])
    assert [m.input_ids.shape[0] for m in step.micro_batches] == [2, 1]


def test_a_plan_that_leaves_tokens_out_is_refused():
    for plan in ([[[1, 2]]], [[[1, 3]]], []):
        with pytest.raises(HoneWorkerError) as caught:
            planned(plan)
        assert (caught.value.code, caught.value.param) == ("bad_batch", "plan")


def test_a_batch_without_signal_has_nothing_to_train():
    for change in ("equal", "masked", "untrainable", "unsampled"):
        f = forest()
        if change == "equal":
            f.rewards = [0.1, 0.1, 0.1]
        elif change == "masked":
            f.trainable = [0, 0, 0]
        for c in f.completions:
            if change == "untrainable":
                c.trainable = 0
            elif change == "unsampled":
                c.sampled = [0] * len(c.suffix)
        with pytest.raises(HoneWorkerError) as caught:
            planned([[[1, 2, 3]]], f)
        assert caught.value.code == "nothing_to_train", change


@pytest.mark.parametrize(
    "part", [{"loss": None}, {"loss": []}, {"loss": "x"}, {"optimizer": {"learningRate": 1e-4, "betas": 3}}]
)
def test_a_part_of_the_wrong_kind_is_a_fault_of_the_configuration(part):
    for name, value in part.items():
        kind = OptimizerConfig if name == "optimizer" else LossOptions
        with pytest.raises(ValidationError):
            TypeAdapter(kind).validate_python(value)
