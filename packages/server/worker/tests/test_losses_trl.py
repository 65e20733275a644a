"""Every loss and option against TRL's own code: loss, gradients, metrics and advantages, in float64."""

import random
from collections import Counter

import pytest
import torch
import trl_reference as trl
from train_tiny import loss_inputs
from trl_reference import Case

from hone_worker.train.objectives import OBJECTIVES
from hone_worker.train.sums import PerRollout, highest

CASES = 200
#: Those with options that no other loss has, which half of the cases draw.
MORE = {"cispo", "sapo", "vespo", "rloo"}
LOSSES = [
    *("grpo", "dr_grpo", "dapo", "bnpo", "gspo", "luspo", "cispo", "sapo", "vespo", "rloo"),
]


def drawn(seed: int) -> Case:
    """Groups of rollouts with nulls among their rewards; rows that are cut, and one in ten masked as a whole."""
    r = torch.Generator().manual_seed(seed)
    members, groups = 2 + seed % 3, 1 + seed % 4
    rows, width = members * groups, 3 + seed % 8

    def uniform(scale):
        return (torch.rand(rows, width, generator=r, dtype=torch.float64) * 2 - 1) * scale

    old = -1.5 + uniform(1.0)
    mask = (torch.rand(rows, width, generator=r) < 0.7).double()
    lengths = torch.randint(1, width + 1, (rows, 1), generator=r)
    mask = mask * (torch.arange(width) < lengths)
    mask[torch.rand(rows, generator=r) < 0.1] = 0.0
    if not mask.any():
        mask[0, 0] = 1.0
    rewards = torch.randint(0, 4, (rows,), generator=r).double() / 3
    rewards[torch.rand(rows, generator=r) < 0.1] = torch.nan
    return Case(
        now=(old + uniform(0.5)).requires_grad_(),
        old=old,
        sampler=old + uniform(0.6),
        reference=old + uniform(0.7),
        entropies=(torch.rand(rows, width, generator=r, dtype=torch.float64) * 2).requires_grad_(),
        mask=mask,
        rewards=rewards,
        members=members,
        other_tokens=seed % 7,
        steps=1 + seed % 2,
    )


def options_for(name: str, seed: int):
    """Some options of those that both have, in values at which they act."""
    choose = random.Random(f"{name} {seed}")
    values = {
        "scaleRewards": ["none", "group", "batch"],
        "importanceLevel": ["token", "sequence"],
        "samplerCorrection": ["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
        "samplerCorrectionMin": [0.7],
        "samplerCorrectionMax": [1.4],
        "offPolicyMaskThreshold": [0.02],
        "topEntropyQuantile": [0.5],
        "beta": [0.3],
        "klBiasCorrection": [True],
        "entropyCoef": [0.2],
        "delta": [1.3],
        "epsilonLow": [0.1],
        "epsilonHigh": [1.1 if name == "cispo" else 0.15],
        "normalizeAdvantages": [True],
        "temperaturePositive": [1.7],
        "kNegative": [2.5],
    }
    if name == "rloo":  # TRL's has none of these
        for option in ("samplerCorrection", "offPolicyMaskThreshold", "topEntropyQuantile", "entropyCoef"):
            del values[option]
    fields = {f.alias for f in OBJECTIVES[name].options.model_fields.values()}
    often = {"samplerCorrection": 0.95}
    given = {
        o: choose.choice(v) for o, v in values.items() if o in fields and choose.random() < often.get(o, 0.5)
    }
    if name == "vespo" and "sequence" in given.get("samplerCorrection", ""):
        given["samplerCorrection"] = "token_mask"
    standard = OBJECTIVES[name].options.model_fields["sampler_correction"].default
    if given.get("samplerCorrection", standard) == "none":
        given = {o: v for o, v in given.items() if not o.startswith("samplerCorrectionM")}
    if "beta" not in given:
        given.pop("klBiasCorrection", None)
    return OBJECTIVES[name].options.model_validate(given), given


def our_advantages(case: Case, options) -> torch.Tensor:
    """Of rollouts without a reward the server sends nothing: here they have advantage 0, as in TRL."""
    objective = OBJECTIVES[options.type]
    rewards = case.rewards.clone()
    penalty = objective.needs(options).reward_penalty
    if penalty is not None:
        rewards -= (penalty(case.old, case.reference) * case.mask).sum(1)
    scored = ~rewards.isnan()
    groups = torch.arange(len(rewards)) // case.members
    found = torch.zeros_like(rewards)
    found[scored] = objective.advantages(rewards[scored], groups[scored], options).values
    return found


def inputs_of(case: Case, options, advantages: torch.Tensor, rows=slice(None)):
    """The trained tokens of these rows; the counts are those of all rows."""
    kept = case.mask.bool()
    rollout = torch.arange(len(kept))[:, None].expand_as(kept)
    high = None
    if OBJECTIVES[options.type].needs(options).top_entropy is not None:
        high = highest(case.entropies.detach(), kept, options.top_entropy_quantile)
    total = float(kept.sum())
    some = torch.zeros_like(kept)
    some[rows] = kept[rows]
    return loss_inputs(
        case.now[some],
        case.old[some],
        case.sampler[some],
        advantages[:, None].expand_as(kept)[some],
        rollout[some],
        float(len(kept)),
        entropies=case.entropies[some],
        reference=case.reference[some],
        rollout_tokens=case.mask.sum(1),
        tokens=total,
        mean_tokens=(total + case.other_tokens) / case.steps,
        high_entropy=None if high is None else high[some],
        entropy_tokens=total if high is None else float(high.sum()),
    )


def gradients(case: Case, total: torch.Tensor) -> torch.Tensor:
    grads = torch.autograd.grad(total, [case.now, case.entropies], allow_unused=True, retain_graph=True)
    return torch.stack([torch.zeros_like(case.now) if g is None else g for g in grads])


seen: Counter[str] = Counter()


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradient_and_metrics_are_trls(name):
    objective = OBJECTIVES[name]
    moved = 0
    cases = 2 * CASES + 60 if name in MORE else CASES
    for seed in range(cases):
        case = drawn(seed)
        options, given = options_for(name, seed)
        theirs_advantages = trl.advantages(case, options, rloo=name == "rloo")
        ours_advantages = our_advantages(case, options)
        # TRL's nanstd has its correction for ddof 1 in float32.
        torch.testing.assert_close(ours_advantages, theirs_advantages, rtol=1e-6, atol=1e-7)

        theirs, metrics = trl.loss(case, options, theirs_advantages)
        outputs = objective.loss(inputs_of(case, options, theirs_advantages), options)
        if name == "rloo":
            # A row without tokens has ratio 1 in TRL's mean: a constant -A without a gradient. Here it has no token.
            theirs = theirs + theirs_advantages[case.mask.sum(1) == 0].sum() / len(theirs_advantages)
        message = f"case {seed}: {given}"
        assert outputs.total.item() == pytest.approx(theirs.item(), rel=1e-9, abs=1e-12), message
        gradient = gradients(case, theirs)
        torch.testing.assert_close(gradients(case, outputs.total), gradient, rtol=1e-9, atol=1e-12)
        moved += bool((gradient != 0).any())
        if (case.mask.sum(1) > 0).all():
            kept = case.mask.bool()
            sums = {key: PerRollout(len(kept)) for key in outputs.metrics}
            for key, values in outputs.metrics.items():
                sums[key].add(values, kept.nonzero()[:, 0])
            for key, value in objective.report(sums).items():
                if not key.startswith("masked/"):
                    assert [value] == pytest.approx(metrics[key], rel=1e-6), f"{key}, {message}"
                    seen[f"metric {key}"] += 1
        seen.update(f"{option} {value}" for option, value in given.items())
        seen[name] += 1
    # Not a comparison of nothing with nothing.
    assert moved > cases * 0.8


def test_every_loss_and_option_was_compared_often_enough():
    if len([name for name in LOSSES if seen[name]]) < len(LOSSES):
        pytest.skip("only some of the losses were run")
    few = {what: count for what, count in seen.items() if count < 200 and not what.startswith("metric")}
    assert not few
    assert {name for name in seen if name.startswith("metric")} == {
        *(f"metric clip_ratio/{part}" for part in ("low_mean", "low_min", "high_mean", "high_max")),
        *("metric clip_ratio/region_mean", "metric cispo_clip_ratio", "metric vespo/phi_seq_mean"),
    }
