"""Objectives of the operator's own: what a file registers, and what is refused."""

import json
import os
from pathlib import Path

import pytest
import train_reference as reference
from train_tiny import grown_forest, sample_logprobs, train

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.objectives import OBJECTIVES
from hone_worker.train.objectives.custom import CUSTOM, custom, load_objectives
from hone_worker.train.step_data import parse_config

EXAMPLE = Path(__file__).parents[4] / "examples" / "objectives" / "best_of_group.py"


@pytest.fixture(autouse=True)
def none_registered(monkeypatch):
    for name in list(CUSTOM):
        monkeypatch.delitem(CUSTOM, name)
    yield
    CUSTOM.clear()


@pytest.fixture
def example():
    assert len(EXAMPLE.read_text().splitlines()) <= 30
    load_objectives(EXAMPLE, OBJECTIVES)
    return {"type": "custom", "name": "best_of_group", "sha256": CUSTOM["best_of_group"].sha256}


def refused(call) -> HoneWorkerError:
    with pytest.raises(HoneWorkerError) as caught:
        call()
    return caught.value


@pytest.fixture
def forest(policy):
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.0)
    return forest


@pytest.fixture
def trained(base, policy, forest, tmp_path):
    """The metrics of a step with this loss."""
    staging, checkpoint = str(tmp_path / "staging"), str(policy)
    given = {"staging": staging, "checkpoint": checkpoint, "plan": [[forest.leaves()]]}
    return lambda loss: train(base, forest, reference.config(**given, loss=loss))["metrics"]


def test_the_documented_example_trains(forest, trained, example):
    metrics = trained({**example, "options": {"margin": 0.2}})
    assert 0 < metrics["better"] < 1 and metrics["grad_norm"] > 0 and metrics["loss"] > 0
    # Groups of 1, .3, -.6; of .1, .1; of 1, 0 and 3, which is masked: only the first is above its mean by .2.
    trained = [forest.rewards[forest.completions[c].rollout] for c, _ in reference.trained_tokens(forest)]
    first = [forest.groups[forest.completions[c].rollout] == 0 for c, _ in reference.trained_tokens(forest)]
    better = sum(reward == 1.0 and of for reward, of in zip(trained, first, strict=True))
    assert metrics["better"] == pytest.approx(better / len(trained))


def test_its_options_are_checked_by_its_own_model(example):
    found = refused(lambda: custom("best_of_group").options({"margin": -1}))
    assert (found.code, found.param) == ("bad_config", "options.margin")
    found = refused(lambda: custom("best_of_group").options({"margins": 1}))
    assert (found.code, found.param) == ("bad_config", "options.margins")
    config = reference.config(loss={**example, "options": {"margin": "x"}})
    assert refused(lambda: parse_config(json.dumps(config))).param == "options.margin"


def test_a_plan_of_other_code_and_an_unknown_name_are_refused(example):
    changed = reference.config(loss={**example, "sha256": "0" * 64})
    found = refused(lambda: parse_config(json.dumps(changed)))
    assert found.code == "objective_changed" and "best_of_group.py" in found.message
    other = reference.config(loss={**example, "name": "worst_of_group"})
    found = refused(lambda: parse_config(json.dumps(other)))
    assert found.code == "bad_config" and "it has best_of_group" in found.message


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("OBJECTIVE = 3", "it has no OBJECTIVE"),
        (
            "from dataclasses import replace\nfrom pydantic import BaseModel\n"
            "from hone_worker.train.objectives.grpo import OBJECTIVE as G\n"
            "class O(BaseModel):\n    type: str = 'mine'\nOBJECTIVE = replace(G, options=O)",
            "its options are a class of hone_worker.train.options.Options",
        ),
        ("from hone_worker.train.objectives.grpo import OBJECTIVE", "there is an objective `grpo` already"),
    ],
)
def test_a_file_that_registers_nothing_is_refused_at_the_start(tmp_path, code, why):
    file = tmp_path / "mine.py"
    file.write_text(code)
    found = refused(lambda: load_objectives(file, OBJECTIVES))
    assert found.code == "bad_objective" and why in found.message
    assert refused(lambda: load_objectives(tmp_path / "none.py", OBJECTIVES)).code == "bad_objective"


RANKED = """
from dataclasses import replace
from typing import Literal
import torch
from hone_worker.train.advantages import Advantages
from hone_worker.train.objectives import dapo

class Ranked(dapo.Dapo):
    type: Literal["ranked"] = "ranked"

def advantages(rewards, groups, _options):
    values = torch.zeros_like(rewards)
    for group in groups.unique():
        members = groups == group
        order = rewards[members].argsort().argsort().double()
        values[members] = order - order.mean()
    return Advantages(values, 0, len(groups.unique()))

OBJECTIVE = replace(dapo.OBJECTIVE, options=Ranked, advantages=advantages)
"""


def test_a_file_may_change_the_advantages_of_a_built_in_loss(base, policy, tmp_path):
    file = tmp_path / "ranked.py"
    file.write_text(RANKED)
    load_objectives(file, OBJECTIVES)
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.0)
    norms = []
    for scale in (1.0, 100.0):  # ranks do not know how far rewards lie apart
        forest.rewards = [scale * reward for reward in forest.rewards]
        loss = {"type": "custom", "name": "ranked", "sha256": CUSTOM["ranked"].sha256}
        staging = str(tmp_path / f"staging-{scale}")
        given = reference.config(
            staging=staging,
            checkpoint=str(policy),
            plan=[[forest.leaves()]],
            loss={**loss, "options": {"beta": 0.1}},
        )
        metrics = train(base, forest, given)["metrics"]
        assert metrics["kl"] > 0
        norms.append(metrics["grad_norm"])
    assert norms[0] == norms[1] > 0


def test_a_file_may_be_given_once(example):
    assert refused(lambda: load_objectives(EXAMPLE, OBJECTIVES)).code == "bad_objective"


MINE = """
from dataclasses import replace
from typing import Literal
from hone_worker.train.objectives.objective import Needs
from hone_worker.train.objectives.policy_gradient import OBJECTIVE as DEFAULT, PolicyGradient

class Mine(PolicyGradient):
    type: Literal["mine"] = "mine"

OBJECTIVE = replace(DEFAULT, options=Mine, needs=lambda options: Needs(whole_groups=WHOLE))
"""


def test_its_rollouts_stay_whole_and_groups_cannot_be_asked_for(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE.replace("WHOLE", "False"))
    found = load_objectives(file, OBJECTIVES)
    assert found.needs(custom("mine").options({})).whole_rollouts
    CUSTOM.clear()
    file.write_text(MINE.replace("WHOLE", "True"))
    load_objectives(file, OBJECTIVES)
    assert "asks for whole groups" in refused(lambda: custom("mine").options({})).message


def test_the_code_that_runs_is_the_code_that_is_hashed(tmp_path, monkeypatch):
    """Python would take a compiled file of the same time and size for it."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    for whole in ("False", "True "):
        file.write_text(MINE.replace("WHOLE", whole))
        os.utime(file, (1_700_000_000, 1_700_000_000))
        CUSTOM.clear()
        load_objectives(file, OBJECTIVES)
    assert "asks for whole groups" in refused(lambda: custom("mine").options({})).message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("report=lambda sums: {'odd': float('nan')}", "reports nan as 'odd'"),
        ("loss=lambda inputs, options: 1 / 0", "failed at mine.py:10: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_in_its_code_is_told(trained, tmp_path, code, words):
    file = tmp_path / "mine.py"
    file.write_text(MINE.replace("WHOLE)", f"False), {code}"))
    load_objectives(file, OBJECTIVES)
    loss = {"type": "custom", "name": "mine", "sha256": CUSTOM["mine"].sha256}
    found = refused(lambda: trained(loss))
    assert found.code == "bad_objective" and words in found.message
