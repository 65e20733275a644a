"""Completions that have a reward or an advantage of their own, in place of what their rollout's reward gives."""

import hashlib
import json

import pytest
import torch
import train_reference as reference
from safetensors.torch import save
from train_tiny import grown_forest, sample_logprobs

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.advantages import Advantages, group_advantages, normalized
from hone_worker.train.completion_advantages import completion_advantages
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data

NONE = float("nan")


def step_data(forest, options, **given):
    tensors = {
        **forest.tensors(),
        **{f"completion_{name}": torch.tensor(values, dtype=torch.float64) for name, values in given.items()},
    }
    return parse_step_data(save(tensors, metadata={"config": json.dumps(options)}))


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_a_reward_of_its_own_is_compared_as_the_rollouts_is(scale, baseline):
    forest = grown_forest()
    rollouts = [c.rollout for c in forest.completions]
    random = torch.Generator().manual_seed(0)
    own = torch.randn(len(rollouts), generator=random, dtype=torch.float64)
    own[::3] = NONE
    data, _ = step_data(forest, reference.config(plan=[[forest.leaves()]]), reward=own.tolist())
    groups = data.rollout_group
    found = completion_advantages(
        group_advantages(data.rollout_reward, groups, scale, baseline=baseline), data
    )
    for c, rollout in enumerate(rollouts):
        members = data.rollout_reward[groups == groups[rollout]]
        equal = bool((members == members[0]).all())
        base = members.mean()
        if baseline == "leave_one_out" and not equal:
            base = (members.sum() - data.rollout_reward[rollout]) / (len(members) - 1)
        compared = {"none": None, "group": members, "batch": data.rollout_reward}[scale]
        divisor = 1.0 if compared is None or equal else compared.std() + 1e-4
        reward = data.rollout_reward[rollout] if own[c].isnan() else own[c]
        expected = 0.0 if equal and own[c].isnan() else (reward - base) / divisor
        assert float(found[c]) == pytest.approx(float(expected), abs=1e-12)


def test_an_advantage_of_its_own_stands_as_it_is_and_normalizing_moves_the_scale():
    forest = grown_forest()
    count = len(forest.completions)
    options = reference.config(plan=[[forest.leaves()]])
    data, _ = step_data(forest, options, advantage=[2.5] + [NONE] * (count - 1))
    plain = group_advantages(data.rollout_reward, data.rollout_group, "none")
    found = completion_advantages(plain, data)
    assert float(found[0]) == 2.5
    assert torch.equal(found[1:], plain.values[data.completion_rollout.long()][1:])

    moved = normalized(plain, data.rollout_group)
    slope = (moved.values.max() - moved.values.min()) / (plain.values.max() - plain.values.min())
    torch.testing.assert_close(moved.scale, (1 / slope).expand(data.rollouts))


def test_advantages_that_are_no_differences_of_rewards_take_no_reward():
    forest = grown_forest()
    options = reference.config(plan=[[forest.leaves()]])
    data, _ = step_data(forest, options, reward=[1.0] * len(forest.completions))
    with pytest.raises(HoneWorkerError, match="Give advantages") as caught:
        completion_advantages(Advantages(torch.ones(data.rollouts), 0, 1), data)
    assert caught.value.param == "completion_reward"
    with pytest.raises(HoneWorkerError, match="must be finite") as caught:
        step_data(forest, options, advantage=[float("inf")] * len(forest.completions))
    assert caught.value.param == "completion_advantage"


def test_a_step_with_what_follows_from_the_rewards_anyway_has_the_same_bytes(base, policy, tmp_path):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.05)
    data, _ = step_data(forest, reference.config(plan=[[forest.leaves()]]))
    advantages = group_advantages(data.rollout_reward, data.rollout_group, "none")
    implied = completion_advantages(advantages, data).tolist()
    digests = {}
    changed = [implied[0] + 1.0, *implied[1:]]
    for name, given in {"none": None, "implied": implied, "changed": changed}.items():
        options = reference.config(
            staging=str(tmp_path / name), checkpoint=str(policy), plan=[[forest.leaves()]], packing="tree"
        )
        extra = {} if given is None else {"advantage": given}
        result = list(train_steps(base, *step_data(forest, options, **extra), lambda: False))[-1]
        assert result["files"]
        weights = (tmp_path / name / "adapter_model.safetensors").read_bytes()
        digests[name] = hashlib.sha256(weights).hexdigest()
    assert digests["none"] == digests["implied"] != digests["changed"]
