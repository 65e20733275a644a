"""What TRL's losses lack, against formulas written out on padded rows; weights; and micro-batches."""

import random

import pytest
import torch
from test_losses_trl import LOSSES, drawn, gradients, inputs_of, options_for, our_advantages
from train_tiny import loss_inputs

from hone_worker.train.advantages import group_advantages
from hone_worker.train.objectives import OBJECTIVES

CASES = 200
ALL = ["policy_gradient", "importance_sampling", *LOSSES]


def written_out(case, options, a):
    """The loss on [rows, width], from the formulas of docs/objectives.md."""
    m, o, a = case.mask, options, a[:, None]
    now, old, sampler = case.now, case.old, case.sampler
    rows, lengths = len(m), m.sum(1, keepdim=True).clamp(min=1)
    ratio = (now - old).exp()
    if o.type == "gspo":
        ratio = (((now - old) * m).sum(1, keepdim=True) / lengths).exp().expand_as(m)
    if o.type == "importance_sampling":
        ratio = (now - sampler).exp()
        values = -ratio * a
    else:
        values = -torch.min(ratio * a, ratio.clip(1 - o.epsilon_low, 1 + o.epsilon_high) * a)
    off = (old - sampler).exp()
    if o.type == "policy_gradient":
        values = values * off.clip(max=o.sampler_correction_max)
    if o.mismatch_mask == "sequence":
        off = ((old - sampler) * m).sum(1, keepdim=True).div(lengths).exp()
    if o.mismatch_mask != "none":
        low, high = o.mismatch_min or 0.5, o.mismatch_max or 5.0
        values = values * (off >= low) * (off <= high)
    if getattr(o, "beta", 0) and o.kl_in != "reward":
        x = (case.reference - now).exp()  # pi_ref / pi
        kl = {"k1": -x.log(), "k2": x.log() ** 2 / 2, "k3": x - 1 - x.log(), None: x - 1 - x.log()}
        values = values + o.beta * kl[o.kl_estimator] * (ratio if o.kl_bias_correction else 1.0)
    summed = (values * m).sum(1)
    if o.type == "policy_gradient":
        trained = int((m.sum(1) > 0).sum())
        return summed.sum() / (rows * (o.normalizer_tokens or max(float(m.sum()) / max(trained, 1), 1.0)))
    if o.type == "dapo":
        return summed.sum() / max((float(m.sum()) + case.other_tokens) / case.steps, 1)
    if o.type == "gspo":
        return (summed / lengths[:, 0]).sum() / rows
    return summed.sum() / float(m.sum())


def written_advantages(case, options):
    """Group by group, member by member, in plain numbers."""
    rewards = case.rewards.tolist()
    if getattr(options, "beta", 0) and options.kl_in == "reward":
        for i, row in enumerate(case.mask.bool()):
            r = (case.reference[i] - case.old[i])[row]
            each = {"k1": -r, "k2": r**2 / 2, "k3": r.exp() - r - 1, None: -r}[options.kl_estimator]
            rewards[i] -= options.beta * float(each.sum())
    found = [0.0] * len(rewards)
    scored = [r for r in rewards if r == r]

    def deviation(values):
        mean = sum(values) / len(values)
        square = sum((v - mean) ** 2 for v in values)
        if options.std == "population":
            return (square / len(values)) ** 0.5 + 1e-8
        return (square / (len(values) - 1)) ** 0.5 + 1e-4

    for start in range(0, len(rewards), case.members):
        group = {i: rewards[i] for i in range(start, start + case.members) if rewards[i] == rewards[i]}
        if len(set(group.values())) < 2:
            continue
        for i, reward in group.items():
            others = [r for j, r in group.items() if j != i or options.baseline == "mean"]
            spread = {"none": None, "group": list(group.values()), "batch": scored}[options.scale_rewards]
            found[i] = (reward - sum(others) / len(others)) / (deviation(spread) if spread else 1.0)
    return torch.tensor(found, dtype=torch.float64)


def own_options(name, seed):
    choose = random.Random(f"{name} {seed}")
    given = {"mismatchMask": choose.choice(["none", "token", "sequence"])}
    if given["mismatchMask"] != "none":
        given |= {o: v for o, v in {"mismatchMin": 0.8, "mismatchMax": 1.2}.items() if choose.random() < 0.8}
    if name == "policy_gradient":
        given |= choose.choice([{}, {"normalizerTokens": 5}])
    else:
        given |= {"scaleRewards": choose.choice(["none", "group", "batch"])}
        given |= {"baseline": choose.choice(["mean", "leave_one_out"])}
        if given["scaleRewards"] != "none" and choose.random() < 0.7:
            given |= {"std": choose.choice(["sample", "population"])}
        if choose.random() < 0.9:
            given |= {"beta": 0.3, "klEstimator": choose.choice(["k1", "k2", "k3"])}
            given |= {"klIn": choose.choice(["loss", "loss", "reward"])}
            if given["klIn"] == "loss" and choose.random() < 0.3:
                given |= {"klBiasCorrection": True}
        if name != "importance_sampling":
            given |= {"samplerCorrection": "none"}
    return OBJECTIVES[name].options.model_validate(given)


@pytest.mark.parametrize("name", ["policy_gradient", "importance_sampling", "dapo", "gspo"])
def test_what_trl_lacks_is_as_it_is_written_out(name):
    moved = 0
    for seed in range(CASES + 120):
        case, options = drawn(seed), own_options(name, seed)
        if name == "policy_gradient":
            scored = ~case.rewards.isnan()
            groups = torch.arange(len(scored)) // case.members
            a = torch.zeros_like(case.rewards)
            a[scored] = group_advantages(case.rewards[scored], groups[scored], "none").values
        else:
            a = written_advantages(case, options)
            torch.testing.assert_close(our_advantages(case, options), a, rtol=1e-9, atol=1e-12)
        expected = written_out(case, options, a)
        total = OBJECTIVES[name].loss(inputs_of(case, options, a), options).total
        assert total.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12), f"{seed}: {options}"
        gradient = gradients(case, expected)
        torch.testing.assert_close(gradients(case, total), gradient, rtol=1e-9, atol=1e-12)
        moved += bool((gradient != 0).any())
    assert moved > CASES


def any_options(name, seed):
    return (
        own_options(name, seed)
        if name in ("policy_gradient", "importance_sampling")
        else options_for(name, seed)[0]
    )


@pytest.mark.parametrize("name", ALL)
def test_how_a_step_is_cut_into_micro_batches_changes_nothing(name):
    """By rollout where the objective asks for whole ones, anywhere otherwise."""
    objective, parted = OBJECTIVES[name], 0
    for seed in range(60):
        case, options = drawn(seed), any_options(name, seed)
        whole = inputs_of(case, options, our_advantages(case, options))
        total = objective.loss(whole, options).total
        r = torch.Generator().manual_seed(seed)
        of = torch.randint(3, (len(whole.rollout),), generator=r)
        if objective.needs(options).whole_rollouts:
            of = torch.randint(3, (len(case.mask),), generator=r)[whole.rollout]
        parts = [objective.loss(part(whole, of == i), options).total for i in of.unique()]
        parted += len(parts) > 1
        assert sum(parts).item() == pytest.approx(total.item(), rel=1e-9, abs=1e-12)
        torch.testing.assert_close(gradients(case, sum(parts)), gradients(case, total), rtol=1e-9, atol=1e-12)
    assert parted > 30


@pytest.mark.parametrize("name", ALL)
def test_a_token_of_weight_two_is_that_token_twice_and_one_of_weight_0_is_none(name):
    objective = OBJECTIVES[name]
    for seed in range(60):
        case, options = drawn(seed), any_options(name, seed)
        plain = inputs_of(case, options, our_advantages(case, options))
        times = torch.randint(3, (len(plain.rollout),), generator=torch.Generator().manual_seed(seed))
        if objective.needs(options).top_entropy is None and times.any():
            counts = counted(plain, times.double())
            weighed = objective.loss(part(plain, slice(None), weights=times.double(), **counts), options)
            repeated = torch.arange(len(times)).repeat_interleave(times)
            repeated = objective.loss(part(plain, repeated, **counts), options)
            assert weighed.total.item() == pytest.approx(repeated.total.item(), rel=1e-9, abs=1e-12)
            torch.testing.assert_close(
                gradients(case, weighed.total), gradients(case, repeated.total), rtol=1e-9, atol=1e-12
            )


def counted(inputs, weights):
    rollout_tokens = torch.zeros_like(inputs.rollout_tokens).index_add_(0, inputs.rollout, weights)
    total = float(weights.sum())
    return {
        **{"tokens": total, "mean_tokens": total, "entropy_tokens": total},
        "rollout_tokens": rollout_tokens,
    }


def part(inputs, some, **changes):
    """These tokens of a step, whose counts stay."""
    given = {
        **{name: getattr(inputs, name)[some] for name in ("completion", "token", "entropies", "reference")},
        "high_entropy": None if inputs.high_entropy is None else inputs.high_entropy[some],
        **{name: getattr(inputs, name) for name in ("tokens", "mean_tokens", "entropy_tokens")},
        "rollout_tokens": inputs.rollout_tokens,
    }
    tokens = (inputs.logprobs, inputs.old, inputs.sampler, inputs.advantages, inputs.rollout)
    return loss_inputs(*(x[some] for x in tokens), inputs.rollouts, **{**given, **changes})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo", {"delta": 0.5}),
        ("grpo", {"samplerCorrectionMin": 4.0}),
        ("policy_gradient", {"mismatchMask": "token", "mismatchMin": 6.0}),
        ("gspo", {"mismatchMask": "token", "mismatchMin": 2.0, "mismatchMax": 2.0}),
        ("gspo", {"mismatchMask": "token", "mismatchMax": 0.3}),
    ],
)
def test_bounds_under_which_nothing_would_train_are_refused(name, options):
    with pytest.raises(ValueError, match=r"must (be above 1|lie below)"):
        OBJECTIVES[name].options.model_validate(options)
