"""Distillation against formulas written out, token by token in Python, and through the trainer."""

import math
import random

import pytest
import torch
import train_reference as reference
from test_losses_trl import drawn, gradients
from train_reference import Completion, Forest
from train_tiny import (
    ByHand,
    last_gradient,
    loss_inputs,
    relative_difference,
    save_policy,
    tiny_base,
    train,
    trained_adapter,
)

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.objectives import OBJECTIVES
from hone_worker.train.step_data import parse_step_data
from hone_worker.train.sums import PerRollout

DISTILL = OBJECTIVES["distill"]
CASES = 240


def options_of(seed):
    choose = random.Random(seed)
    given = {
        "klCoef": choose.choice([0.3, 1.0, 2.0]),
        "klDiscount": choose.choice([0.0, 0.0, 0.5, 1.0]),
        "rewardCoef": choose.choice([0.0, 0.0, 1.0, 0.4]),
        "importanceCap": choose.choice([1.2, 2.0]),
        "epsilonLow": 0.2,
        "epsilonHigh": choose.choice([0.1, 0.2]),
        "mismatchMask": choose.choice(["none", "none", "token", "sequence"]),
    }
    if given["mismatchMask"] != "none":
        given |= {"mismatchMin": 0.8, "mismatchMax": 1.2}
    return DISTILL.options.model_validate(given)


def case_of(seed):
    """Rows are rollouts whose tokens lie in one to three answers; some answers have no teacher."""
    case = drawn(seed)
    r = torch.Generator().manual_seed(1000 + seed)
    answer = torch.randint(0, 2, case.mask.shape, generator=r).cumsum(1).div(3, rounding_mode="floor")
    teacher = case.reference.clone()
    for row in range(len(teacher)):
        for a in answer[row].unique():
            if torch.rand(1, generator=r) < 0.2:
                teacher[row, answer[row] == a] = torch.nan
    return case, answer, teacher


def rewards_written_out(case, options):
    """Each against the mean of its group's, in plain numbers; 0 where there is none."""
    rewards = case.rewards.tolist()
    found = []
    for i, reward in enumerate(rewards):
        first = i // case.members * case.members
        group = [r for r in rewards[first : first + case.members] if r == r]
        found.append(options.reward_coef * (reward - sum(group) / len(group)) if reward == reward else 0.0)
    return found


def written_out(case, answer, teacher, options, a):
    """The loss, one token at a time."""
    total, tokens, kl, taught = 0.0, 0, [], 0
    rows, width = case.mask.shape
    for i in range(rows):
        trained = [t for t in range(width) if case.mask[i, t]]
        tokens += len(trained)
        gaps = {t: float(case.old[i, t] - teacher[i, t]) for t in trained}
        mean = sum(float(case.old[i, t] - case.sampler[i, t]) for t in trained) / max(len(trained), 1)
        for t in trained:
            taught += gaps[t] == gaps[t]
            if gaps[t] == gaps[t]:
                kl.append(gaps[t])
            later = [s for s in trained if s >= t and answer[i, s] == answer[i, t]]
            pull = 0.0
            for distance, s in enumerate(later):
                if gaps[s] == gaps[s]:
                    pull -= options.kl_coef * options.kl_discount**distance * gaps[s]
            advantage = a[i] + pull
            off = math.exp(float(case.old[i, t] - case.sampler[i, t]))
            weight = min(off, options.importance_cap)
            if options.mismatch_mask != "none":
                looked = off if options.mismatch_mask == "token" else math.exp(mean)
                weight *= options.mismatch_min <= looked <= options.mismatch_max
            ratio = (case.now[i, t] - case.old[i, t]).exp()
            clip = ratio.clip(1 - options.epsilon_low, 1 + options.epsilon_high)
            total = total - weight * torch.minimum(ratio * advantage, clip * advantage)
    return total / tokens, kl, taught / tokens


def inputs_of(case, answer, teacher, a, some=None):
    row, column = case.mask.bool().nonzero().unbind(1)
    if some is not None:
        row, column = row[some], column[some]
    width = case.mask.shape[1]
    tokens = float(case.mask.sum())
    return loss_inputs(
        *(x[row, column] for x in (case.now, case.old, case.sampler)),
        a[row],
        row,
        len(case.mask),
        completion=row * width + answer[row, column],
        token=row * width + column,
        reference=teacher[row, column],
        **{"tokens": tokens, "mean_tokens": tokens, "rollout_tokens": case.mask.sum(1)},
    )


def test_loss_and_gradient_are_as_they_are_written_out():
    moved = 0
    for seed in range(CASES):
        (case, answer, teacher), options = case_of(seed), options_of(seed)
        groups = torch.arange(len(case.rewards)) // case.members
        found = DISTILL.advantages(case.rewards, groups, options)
        a = rewards_written_out(case, options)
        assert found.values.tolist() == pytest.approx(a, abs=1e-12)
        expected, kl, share = written_out(case, answer, teacher, options, a)
        # The order of tokens within a micro-batch is the trainer's own.
        shuffled = torch.randperm(int(case.mask.sum()), generator=torch.Generator().manual_seed(seed))
        inputs = inputs_of(case, answer, teacher, found.values, shuffled)
        outputs = DISTILL.loss(inputs, options)
        assert outputs.total.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12), (
            f"{seed}: {options}"
        )
        gradient = gradients(case, expected)
        torch.testing.assert_close(gradients(case, outputs.total), gradient, rtol=1e-9, atol=1e-12)
        moved += bool((gradient != 0).any())

        sums = {name: PerRollout(len(case.mask)) for name in outputs.metrics}
        for name, values in outputs.metrics.items():
            sums[name].add(values.detach(), inputs.rollout)
        report = DISTILL.report(sums)
        assert report["distill/teacher_share"] == pytest.approx(share)
        assert report["distill/kl"] == (pytest.approx(sum(kl) / len(kl)) if kl else None)
    assert moved > 200


def test_answers_apart_in_micro_batches_change_nothing():
    for seed in range(60):
        (case, answer, teacher), options = case_of(seed), options_of(seed)
        whole = options.mismatch_mask == "sequence"
        assert DISTILL.needs(options).whole_rollouts == whole
        a = torch.tensor(rewards_written_out(case, options), dtype=torch.float64)
        inputs = inputs_of(case, answer, teacher, a)
        total = DISTILL.loss(inputs, options).total
        part = (inputs.rollout if whole else inputs.completion) % 3
        parts = [
            DISTILL.loss(inputs_of(case, answer, teacher, a, part == i), options).total for i in part.unique()
        ]
        assert sum(parts).item() == pytest.approx(total.item(), rel=1e-9, abs=1e-12)
        torch.testing.assert_close(gradients(case, sum(parts)), gradients(case, total), rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def exact():
    # In float64: what differs is then the formula, not the rounding.
    return tiny_base(dtype=torch.float64)


@pytest.fixture
def folders(exact, tmp_path):
    return [
        save_policy(tmp_path / name, exact, trained_adapter(exact, seed=seed, size=0.3))
        for name, seed in (("student", 3), ("teacher", 8))
    ]


def forest_of(seed):
    """A group of one, one of three with a branch and a masked rollout; equal rewards, and none."""
    random = torch.Generator().manual_seed(seed)

    def suffix(prompt, sampled):
        ids = torch.randint(40, (prompt + sampled,), generator=random).tolist()
        return {"suffix": ids, "sampled": [0] * prompt + [1] * sampled}

    forest = Forest()
    forest.add(Completion(**suffix(4, 6), rollout=forest.rollout(0.5, 0)))
    for reward, trainable in ((math.nan, 1), (0.5, 1), (0.5, 0)):
        rollout = forest.rollout(reward, 1, trainable)
        first = forest.add(Completion(**suffix(5, 3), rollout=rollout))
        forest.add(Completion(**suffix(2, 4), rollout=rollout, parent=first, temperature=0.7))
        forest.add(Completion(**suffix(3, 5), rollout=rollout, parent=first))
    return forest


def given(forest, folders, tmp_path, packing, **changes):
    leaves = forest.leaves()
    return reference.config(
        staging=str(tmp_path / "staging"),
        checkpoint=str(folders[0]),
        plan=[[leaves[:3], leaves[3:]]],
        packing=packing,
        loss={"type": "distill"},
        optimizer={"learning_rate": 0.01, "max_grad_norm": 1e9, "warmup_steps": 0},
        **changes,
    )


@pytest.mark.parametrize("packing", ["rows", "tree"])
@pytest.mark.parametrize("teacher", ["base", "policy", "given"])
def test_the_trainer_asks_the_teacher_for_the_students_own_tokens(exact, folders, tmp_path, packing, teacher):
    forest = forest_of(5)
    student = ByHand(folders[0], forest, {}, torch.float64)
    student.remember_start()
    for c, completion in enumerate(forest.completions):
        completion.logprobs = [
            student.start[c, k] if sampled else 0.0 for k, sampled in enumerate(completion.sampled)
        ]
    master = ByHand(folders[1], forest, {}, torch.float64)
    if teacher == "base":
        with master.model.disable_adapter():
            master.remember_start()
    else:
        master.remember_start()
    trained = reference.trained_tokens(forest)
    # By hand: -A log pi is the gradient at pi = pi_o = pi_s, and A is the negative gap.
    total = torch.zeros((), dtype=torch.float64)
    seen = set()
    for leaf in forest.leaves():
        for c, k, logprob in student.tokens(leaf):
            if (c, k) in seen or (c, k) not in set(trained):
                continue
            seen.add((c, k))
            total = total + (student.start[c, k] - master.start[c, k]) * logprob / len(trained)
    total.backward()

    changes = {} if teacher != "policy" else {"reference": str(folders[1])}
    if teacher == "given":
        forest.reference = [
            master.start[c, k] if sampled else math.nan
            for c, completion in enumerate(forest.completions)
            for k, sampled in enumerate(completion.sampled)
        ]
    metrics = train(exact, forest, given(forest, folders, tmp_path, packing, **changes))["metrics"]
    theirs = student.gradients()
    assert relative_difference(last_gradient(tmp_path / "staging", 0.9), theirs) < 1e-5
    gaps = [student.start[token] - master.start[token] for token in trained]
    assert metrics["distill/kl"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-5)
    taught = [master.start[token] for token in trained]
    assert metrics["distill/teacher_logprob"] == pytest.approx(sum(taught) / len(taught), rel=1e-5)
    assert metrics["distill/teacher_share"] == 1
    # Of three rewards that there are, all equal.
    assert (metrics["reward"], metrics["frac_reward_zero_std"]) == (0.5, 1.0)


def test_without_any_reward_a_step_says_so_and_trains(exact, folders, tmp_path):
    forest = forest_of(2)
    forest.rewards = [math.nan] * len(forest.rewards)
    options = given(forest, folders, tmp_path, "tree", reference=str(folders[1]))
    metrics = train(exact, forest, options)["metrics"]
    assert [metrics[n] for n in ("reward", "reward_std", "frac_reward_zero_std")] == [None] * 3
    assert metrics["grad_norm"] > 0


def test_what_a_step_of_distillation_cannot_be_is_refused(folders, tmp_path):
    forest = forest_of(2)
    options = given(forest, folders, tmp_path, "tree")
    forest.reference = [math.inf] * sum(len(c.suffix) for c in forest.completions)
    with pytest.raises(HoneWorkerError, match="`reference` must be finite"):
        parse_step_data(reference.body(forest, options))
    forest.reference = [math.nan] * len(forest.reference)
    with pytest.raises(HoneWorkerError, match="dapo does not measure"):
        forest.rewards = [0.0] * len(forest.rewards)
        parse_step_data(reference.body(forest, {**options, "loss": {"type": "dapo"}}))
    forest.reference = None
    forest.rewards[0] = math.nan
    with pytest.raises(HoneWorkerError, match="`rollout_reward` must be finite"):
        parse_step_data(reference.body(forest, {**options, "loss": {"type": "dapo"}}))
