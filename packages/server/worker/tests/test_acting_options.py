"""No option is ignored in silence: with each of the others it changes the loss, or the two are refused by name."""

from itertools import product

import pytest
import torch
from pydantic import ValidationError
from test_losses_trl import gradients, inputs_of, our_advantages
from trl_reference import Case

from hone_worker.train.objectives import OBJECTIVES

OF_REWARDS = [name for name, objective in OBJECTIVES.items() if not objective.unsampled]

#: Of every option values at which it acts.
VALUES: dict[str, list] = {
    **{"epsilonLow": [0.05], "epsilonHigh": [0.07], "delta": [1.1], "importanceCap": [1.1]},
    **{"normalizerTokens": [7], "normalizeAdvantages": [True], "importanceLevel": ["token", "sequence"]},
    **{"scaleRewards": ["none", "group", "batch"], "std": ["population"], "baseline": ["leave_one_out"]},
    "samplerCorrection": ["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
    **{"samplerCorrectionMin": [0.9], "samplerCorrectionMax": [1.1]},
    **{"mismatchMask": ["token", "sequence"], "mismatchMin": [0.8], "mismatchMax": [1.2]},
    **{"offPolicyMaskThreshold": [0.02], "topEntropyQuantile": [0.5], "entropyCoef": [0.2]},
    **{"beta": [0.3], "klEstimator": ["k2"], "klIn": ["reward"], "klBiasCorrection": [True]},
    **{"measureKl": [True, False], "reference": [3]},
    **{"temperaturePositive": [1.7], "temperatureNegative": [1.3]},
    **{"kPositive": [2.5], "lambdaPositive": [2.5], "kNegative": [2.5], "lambdaNegative": [1.5]},
    **{"klCoef": [0.5], "klDiscount": [0.5], "rewardCoef": [0.7]},
}
#: Those by which another one is switched on or off; numbers only say how far a thing goes.
MODES = [
    *("scaleRewards", "baseline", "normalizeAdvantages", "samplerCorrection", "importanceLevel"),
    *("mismatchMask", "beta", "klIn", "klBiasCorrection", "measureKl", "entropyCoef", "rewardCoef"),
]


def drawn(seed: int) -> Case:
    """Rollouts that sampler and trainer agree on closely, and others that they do not agree on at all."""
    r = torch.Generator().manual_seed(seed)
    rows, width = 40, 6

    def uniform(scale, columns=width):
        return (torch.rand(rows, columns, generator=r, dtype=torch.float64) * 2 - 1) * scale

    spread = torch.linspace(0.02, 1.5, rows, dtype=torch.float64)[torch.randperm(rows, generator=r)][:, None]
    old = -3 + uniform(1.0)
    mask = (torch.rand(rows, width, generator=r) < 0.7).double()
    mask[:, 0] = 1.0
    return Case(
        now=(old + (uniform(0.5) + uniform(0.5, columns=1)) * spread).requires_grad_(),
        old=old,
        sampler=old + (uniform(1.0) + uniform(1.0, columns=1)) * spread,
        reference=old + uniform(0.7),
        entropies=(torch.rand(rows, width, generator=r, dtype=torch.float64) * 2).requires_grad_(),
        mask=mask,
        rewards=torch.rand(rows, generator=r, dtype=torch.float64),
        members=4,
        other_tokens=3,
        steps=2,
    )


def measured(name: str, given: dict, seed: int, *, first: bool):
    """The gradient, and what the drift is measured on; `first`: in the only optimizer step of an operation."""
    options = OBJECTIVES[name].options.model_validate(given)
    case = drawn(seed)
    if first:
        case.old = case.now.detach()
    loss = OBJECTIVES[name].loss(inputs_of(case, options, our_advantages(case, options)), options)
    needs = OBJECTIVES[name].needs(options)
    drift = (needs.reference, needs.drift_sample)
    return gradients(case, loss.total), drift, getattr(options, "reference", None) if any(drift) else None


def idle(name: str, *, first: bool = False) -> set[tuple]:
    """Options that change nothing beside another one; without any that is refused."""
    fields = {field.alias: field.default for field in OBJECTIVES[name].options.model_fields.values()}
    assert set(fields) - {"type"} <= set(VALUES), "a new option has no value here"
    known: dict[str, tuple] = {}

    def of(given: dict, seed: int):
        key = repr((sorted(given.items()), seed))
        if key not in known:
            known[key] = measured(name, given, seed, first=first)
        return known[key]

    found = set()
    beside = [{}, {"beta": 0.3, "klIn": "reward"}] if "klIn" in fields else [{}]
    beside += [*({mode: value} for mode in MODES if mode in fields for value in VALUES[mode])]
    for other, option in product(beside, (o for o in VALUES if o in fields)):
        for value in VALUES[option]:
            if option in other or value == fields[option]:
                continue
            try:
                for given in (other, {**other, option: value}):
                    OBJECTIVES[name].options.model_validate(given)
            except ValidationError:
                continue
            if all(same(of(other, seed), of({**other, option: value}, seed)) for seed in range(3)):
                found.add((option, value, *other.items()))
    return found


def same(one: tuple, other: tuple) -> bool:
    """But for rounding: what only adds the same numbers in another order does nothing."""
    return one[1:] == other[1:] and torch.allclose(one[0], other[0], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", OF_REWARDS)
def test_every_option_acts_with_every_other(name):
    assert idle(name) == set()


def test_in_a_single_optimizer_step_only_what_limits_the_ratio_waits_for_another():
    """What docs/objectives.md says of such a step, whose ratio is 1; the server has the same list, and tells of it."""
    limits = {"epsilonLow", "epsilonHigh", "delta", "importanceLevel"}
    for name in ("policy_gradient", "dapo", "rloo"):
        assert {option for option, *_ in idle(name, first=True)} == limits & set(
            field.alias for field in OBJECTIVES[name].options.model_fields.values()
        )


@pytest.mark.parametrize(
    ("name", "given", "option", "other"),
    [
        ("policy_gradient", {"samplerCorrection": "none", "importanceCap": 1.5}, "importanceCap", "samplerCorrection"),
        ("policy_gradient", {"samplerCorrection": "none", "samplerCorrectionMin": 0.5}, "samplerCorrectionMin", "samplerCorrection"),
        ("dapo", {"samplerCorrection": "none", "samplerCorrectionMax": 2.0}, "samplerCorrectionMax", "samplerCorrection"),
        ("rloo", {"samplerCorrectionMax": 2.0}, "samplerCorrectionMax", "samplerCorrection"),
        ("dr_grpo", {"std": "population"}, "std", "scaleRewards"),
        ("distill", {"mismatchMax": 2.0}, "mismatchMax", "mismatchMask"),
        ("grpo", {"mismatchMin": 0.7}, "mismatchMin", "mismatchMask"),
        ("gspo", {"klIn": "reward"}, "klIn", "beta"),
        ("sapo", {"klEstimator": "k2"}, "klEstimator", "beta"),
        ("cispo", {"klBiasCorrection": True}, "klBiasCorrection", "beta"),
        ("vespo", {"beta": 0.1, "klIn": "reward", "klBiasCorrection": True}, "klBiasCorrection", "klIn"),
        ("luspo", {"beta": 0.1, "measureKl": True}, "measureKl", "beta"),
        ("bnpo", {"measureKl": False, "reference": 3}, "reference", "measureKl"),
        ("dpo", {"loss": "ipo", "labelSmoothing": 0.1}, "labelSmoothing", "ipo"),
    ],
)  # fmt: skip
def test_what_cannot_act_is_refused_with_both_names(name, given, option, other):
    with pytest.raises(ValidationError) as refused:
        OBJECTIVES[name].options.model_validate(given)
    assert option in str(refused.value) and other in str(refused.value)
