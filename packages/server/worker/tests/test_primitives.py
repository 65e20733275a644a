"""`forward_backward` and `optim_step` beside PEFT, beside one step of training, and beside each other."""

import json
from pathlib import Path

import pytest
import torch
import train_reference as reference
from pydantic import TypeAdapter
from safetensors.torch import load_file, save
from test_train_memory import room_for
from train_reference import Completion, Forest
from train_tiny import (
    VOCABULARY,
    last_gradient,
    peft_logprobs,
    peft_parameters,
    relative_difference,
    train,
    under_peft,
)

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.memory import TrainerMemory
from hone_worker.train.primitives.data import parse_forward, parse_optim
from hone_worker.train.primitives.gradient import GRADIENT_FILE
from hone_worker.train.primitives.losses import TokenInputs, TokenLossOptions, clipped_tokens, token_losses
from hone_worker.train.primitives.operations import forward_backward, optim_step

LOSSES = [
    {"type": "cross_entropy"},
    {"type": "importance_sampling"},
    {"type": "ppo", "clipLow": 0.9, "clipHigh": 1.05},
    {"type": "cispo", "clipLow": 0.9, "clipHigh": 1.05},
    {"type": "dro", "beta": 0.7},
]


def sequences(policy: Path, seed: int = 5) -> list[dict[str, list]]:
    """Two that share a beginning and one of its own, with logprobs a little off the policy's."""
    random = torch.Generator().manual_seed(seed)
    model = under_peft(policy)
    shared = torch.randint(VOCABULARY, (6,), generator=random).tolist()
    data = []
    for number, length in enumerate((5, 8, 9)):
        ids = torch.randint(VOCABULARY, (length,), generator=random).tolist()
        ids = (shared if number < 2 else []) + ids
        with torch.no_grad():
            found = peft_logprobs(model, ids, [1.0] * len(ids))
        noise = torch.randn(found.shape, generator=random) * 0.1
        data.append(
            {
                "tokens": ids[:-1],
                "targets": ids[1:],
                "weights": torch.rand(len(found), generator=random).round(decimals=1).tolist(),
                "logprobs": (found + noise).clamp(max=0).tolist(),
                "advantages": torch.randn(len(found), generator=random).tolist(),
            }
        )
    return data


def body(data: list[dict[str, list]], options: dict) -> bytes:
    offsets = torch.tensor([0, *(len(one["tokens"]) for one in data)]).cumsum(0)
    tensors = {"offsets": offsets}
    for name, kind in (("tokens", torch.int32), ("targets", torch.int32)):
        tensors[name] = torch.tensor([x for one in data for x in one[name]], dtype=kind)
    for name in ("weights", "logprobs", "advantages"):
        tensors[name] = torch.tensor([x for one in data for x in one[name]], dtype=torch.float32)
    return save(tensors, metadata={"config": json.dumps(options)})


def told(
    base, data, policy: Path, staging: Path, loss=LOSSES[0], aborted=lambda: False, memory=None, **changes
) -> list[dict]:
    options = {
        "operation_id": "op-1",
        "model": "m",
        "staging": str(staging),
        "checkpoint": str(policy),
        "loss": loss,
        "temperature": 1.0,
        "plan": [list(range(len(data)))],
        "backward": True,
        **changes,
    }
    parsed, config = parse_forward(body(data, options))
    return list(forward_backward(base, parsed, config, aborted, memory))


def forward(*args, **changes) -> dict:
    return told(*args, **changes)[-1]


def step(base, policy: Path, gradient: Path, staging: Path, memory=None, **optimizer) -> dict:
    options = {
        **{"operation_id": "op-2", "model": "m", "step": 1, "staging": str(staging)},
        **{"checkpoint": str(policy), "lora": {"r": 4, "alpha": 8.0}, "seed": 0},
        "optimizer": {"learningRate": 0.01, **optimizer},
        "gradient": str(gradient),
    }
    return list(optim_step(base, parse_optim(json.dumps(options).encode()), lambda: False, memory))[-1]


def by_hand(loss: dict, now, one) -> torch.Tensor:
    """From the formulas of Tinker's page, in float64."""
    weights, sampler, advantages = (
        torch.tensor(one[n]).double() for n in ("weights", "logprobs", "advantages")
    )
    ratio = torch.exp(now - sampler)
    bounded = ratio.clamp(loss.get("clipLow"), loss.get("clipHigh")) if "clipLow" in loss else ratio
    if loss["type"] == "cross_entropy":
        return -(now * weights).sum()
    if loss["type"] == "importance_sampling":
        return -(ratio * advantages).sum()
    if loss["type"] == "ppo":
        return -torch.min(ratio * advantages, bounded * advantages).sum()
    if loss["type"] == "cispo":
        return -(bounded.detach() * now * advantages).sum()
    return -(now * advantages - 0.5 * loss["beta"] * (now - sampler) ** 2).sum()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["type"])
def test_logprobs_loss_and_gradient_are_those_of_peft(base, policy, tmp_path, loss):
    data = sequences(policy)
    ours = forward(base, data, policy, tmp_path / "staging", loss)

    model = under_peft(policy, torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for one, found in zip(data, ours["logprobs"], strict=True):
        ids = [*one["tokens"], one["targets"][-1]]
        now = peft_logprobs(model, ids, [1.0] * len(ids))
        torch.testing.assert_close(torch.tensor(found).double(), now.detach(), rtol=0, atol=1e-5)
        total = total + by_hand(loss, now, one)
    total.backward()
    theirs = {name: parameter.grad.float() for name, parameter in peft_parameters(model).items()}
    gradient = load_file(tmp_path / "staging" / GRADIENT_FILE)
    went = gradient.pop("tokens")
    assert relative_difference(gradient, theirs) < 1e-5
    assert ours["metrics"]["loss"] == pytest.approx(float(total.detach()), rel=1e-5)
    # The beginning that two share went through the model once.
    assert int(went) == ours["metrics"]["model_tokens"] == sum(len(one["tokens"]) for one in data) - 6


def test_two_calls_leave_the_bits_of_one_over_both(base, policy, tmp_path):
    first, second = sequences(policy, seed=1), sequences(policy, seed=2)
    loss = LOSSES[1]
    forward(base, first, policy, tmp_path / "one", loss)
    forward(base, second, policy, tmp_path / "two", loss, gradient=str(tmp_path / "one"))
    together = forward(base, [*first, *second], policy, tmp_path / "both", loss, plan=[[0, 1, 2], [3, 4, 5]])
    two, both = ((tmp_path / name / GRADIENT_FILE).read_bytes() for name in ("two", "both"))
    assert two == both
    assert two != (tmp_path / "one" / GRADIENT_FILE).read_bytes()
    assert together["files"] == [GRADIENT_FILE]
    for name in ("two", "both"):
        result = step(base, policy, tmp_path / name, tmp_path / f"{name}-next", warmupSteps=0)
        assert result["metrics"]["learning_rate"] == 0.01
    for file in result["files"]:
        assert (tmp_path / "two-next" / file).read_bytes() == (tmp_path / "both-next" / file).read_bytes()


def test_calls_and_an_optimizer_step_are_one_step_of_training(base, policy, tmp_path):
    """Of imitation, whose loss is a mean: here its share is in the weights, and the last bit may differ."""
    forest = Forest()
    data = []
    trained = 0
    for one in sequences(policy):
        ids = [*one["tokens"], one["targets"][-1]]
        sampled = [0, 0, 0, *[1] * (len(ids) - 3)]
        trained += sum(sampled)
        forest.add(Completion(ids, sampled, forest.rollout(1.0, 0), policy=-1))
        data.append({**one, "weights": [float(s) for s in sampled[1:]]})
    for one in data:
        one["weights"] = [w / trained for w in one["weights"]]
    optimizer = {"learning_rate": 0.01, "warmup_steps": 2}
    options = {"staging": str(tmp_path / "trained"), "checkpoint": str(policy), "plan": [[[0], [1], [2]]]}
    result = train(base, forest, reference.config(**options, optimizer=optimizer, loss={"type": "sft"}))

    gradient = None
    loss = 0.0
    for number, one in enumerate(data):
        folder = tmp_path / f"gradient-{number}"
        made = forward(base, [one], policy, folder, gradient=gradient)
        loss += made["metrics"]["loss"]
        gradient = str(folder)
    ours = step(base, policy, Path(gradient), tmp_path / "stepped", warmupSteps=2)
    assert loss == pytest.approx(result["metrics"]["loss"], rel=1e-6)
    for name in ("grad_norm", "learning_rate"):
        assert ours["metrics"][name] == pytest.approx(result["metrics"][name], rel=1e-6)
    theirs = last_gradient(tmp_path / "trained", 0.9)
    assert relative_difference(last_gradient(tmp_path / "stepped", 0.9), theirs) < 1e-5
    weights = load_file(tmp_path / "stepped" / "adapter_model.safetensors")
    for name, tensor in load_file(tmp_path / "trained" / "adapter_model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-6, atol=1e-6)


def test_a_backward_without_memory_is_done_again_in_halves(base, policy, tmp_path):
    data, loss = sequences(policy), LOSSES[1]
    whole = forward(base, data, policy, tmp_path / "whole", loss)
    tokens = whole["metrics"]["model_tokens"]
    with room_for(base, tokens - 1) as struck:
        events = told(base, data, policy, tmp_path / "halves", loss)
    assert struck == [tokens]
    (split,) = (e for e in events if e["event"] == "split")
    assert split["into"] == [[0, 1], [2]] and "too little memory" in split["message"]
    assert [(e["done"], e["total"]) for e in events if e["event"] == "microbatch"] == [(1, 2), (2, 2)]
    assert events[-1]["metrics"]["loss"] == pytest.approx(whole["metrics"]["loss"], rel=1e-5)
    gradients = [load_file(tmp_path / name / GRADIENT_FILE) for name in ("halves", "whole")]
    for gradient in gradients:
        gradient.pop("tokens")
    assert relative_difference(*gradients) < 1e-5

    # The server keeps what was told in the plan: done again with it, and with enough memory, it is the same.
    redone = forward(base, data, policy, tmp_path / "redone", loss, plan=split["into"])
    assert redone["logprobs"] == events[-1]["logprobs"]
    one, other = ((tmp_path / name / GRADIENT_FILE).read_bytes() for name in ("halves", "redone"))
    assert one == other


def test_on_a_gpu_what_does_not_fit_is_planned_in_parts(base, policy, tmp_path, monkeypatch):
    monkeypatch.setattr("hone_worker.train.fit.least_tokens", lambda *_base: 2)
    data, loss = sequences(policy), LOSSES[1]
    memory = TrainerMemory(base)
    whole = told(base, data, policy, tmp_path / "whole", loss, memory=memory)
    (kept,) = memory._kept.values()
    most = whole[-1]["metrics"]["model_tokens"] - 1
    monkeypatch.setattr(TrainerMemory, "budget", lambda _self: int(kept.of(most, False) / 0.95) + 1)
    events = told(base, data, policy, tmp_path / "parts", loss)
    assert [e for e in events if e["event"] == "split"] == [{"event": "split", "into": [[0, 1], [2]]}]
    redone = forward(base, data, policy, tmp_path / "redone", loss, plan=[[0, 1], [2]])
    assert redone["logprobs"] == events[-1]["logprobs"]
    one, other = ((tmp_path / name / GRADIENT_FILE).read_bytes() for name in ("parts", "redone"))
    assert one == other
    # Without a gradient nothing is kept.
    alone = told(base, data, policy, tmp_path / "alone", loss, backward=False)
    assert not [e for e in alone if e["event"] == "split"]


def test_forward_alone_writes_nothing(base, policy, tmp_path):
    data = sequences(policy)
    alone = forward(base, data, policy, tmp_path / "alone", backward=False)
    both = forward(base, data, policy, tmp_path / "both")
    assert alone["logprobs"] == both["logprobs"] and alone["metrics"]["loss"] == both["metrics"]["loss"]
    assert alone["files"] == [] and list((tmp_path / "alone").iterdir()) == []


def test_what_is_aborted_or_fails_leaves_its_folder_empty(base, policy, tmp_path):
    data = sequences(policy)
    with pytest.raises(HoneWorkerError, match="aborted"):
        forward(base, data, policy, tmp_path / "a", aborted=lambda: True)
    far = {**data[0], "logprobs": [-1e4] * len(data[0]["tokens"])}
    with pytest.raises(HoneWorkerError) as failed:
        forward(base, [far], policy, tmp_path / "b", LOSSES[1])
    assert failed.value.code == "non_finite"
    (tmp_path / "empty").mkdir()
    with pytest.raises(HoneWorkerError) as failed:
        step(base, policy, tmp_path / "empty", tmp_path / "c")
    assert failed.value.code == "bad_checkpoint"
    assert [list((tmp_path / name).iterdir()) for name in "abc"] == [[], [], []]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"plan": [[0, 1]]}, "plan"),
        ({"loss": {"type": "grpo"}}, "loss"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(base, policy, tmp_path, changes, param):
    with pytest.raises(HoneWorkerError) as refused:
        forward(base, sequences(policy), policy, tmp_path / "staging", **changes)
    assert refused.value.param == param


@pytest.mark.parametrize("foreign", [-1, VOCABULARY])
@pytest.mark.parametrize("name", ["tokens", "targets"])
def test_an_id_of_another_vocabulary_is_refused_with_its_place(base, policy, tmp_path, name, foreign):
    data = sequences(policy)
    data[1][name][2] = foreign
    with pytest.raises(HoneWorkerError, match=rf"{name}\[2\] of sequence 1 is {foreign};") as refused:
        forward(base, data, policy, tmp_path / "staging")
    assert (refused.value.code, refused.value.param) == ("bad_batch", name)


@pytest.mark.parametrize("name", ["importance_sampling", "ppo", "cispo", "dro"])
def test_without_an_advantage_a_token_adds_nothing_whatever_its_logprob(name):
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    given = TokenInputs(
        logprobs=logprobs,
        weights=torch.ones(3),
        sampler=torch.tensor([-9999.0, -2.1, 0.0]),
        advantages=torch.tensor([0.0, 0.5, 0.0]),
    )
    options = TypeAdapter(TokenLossOptions).validate_python({"type": name})
    losses = token_losses(given, options)
    losses.sum().backward()
    assert losses[[0, 2]].tolist() == [0.0, 0.0] == logprobs.grad[[0, 2]].tolist()
    assert losses[1] != 0 and logprobs.grad[1] != 0
    if name == "ppo":
        assert clipped_tokens(given, options) == 0
