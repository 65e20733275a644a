"""The default objective with all that it has in common with others: TRL's own code, and the bits that it always had."""

import pytest
import torch
import trl_reference as trl
from test_losses_reference import written_advantages
from test_losses_trl import drawn, gradients, inputs_of, options_for, our_advantages

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.objectives import OBJECTIVES
from hone_worker.train.objectives.clipped import surrogate
from hone_worker.train.objectives.masks import mismatch_mask
from hone_worker.train.objectives.objective import importance
from hone_worker.train.objectives.policy_gradient import PolicyGradient, loss, mean_length
from hone_worker.train.objectives.ratios import log_ratio, weighed
from hone_worker.train.step_data import parse_config

OURS = OBJECTIVES["policy_gradient"]


def both(seed: int):
    """The same options for TRL's `dr_grpo` and for the default, whose cap is the correction's upper bound."""
    theirs, given = options_for("dr_grpo", seed)
    given = {name: value for name, value in given.items() if name not in ("delta", "importanceLevel")}
    given |= {"samplerCorrection": theirs.sampler_correction, "normalizerTokens": 8 + seed % 5}
    cap = given.pop("samplerCorrectionMax", 3.0)
    corrects = theirs.sampler_correction != "none"
    ours = PolicyGradient.model_validate({**given, **({"importanceCap": cap} if corrects else {})})
    bound = {"samplerCorrectionMax": cap} if corrects else {}
    return ours, OBJECTIVES["dr_grpo"].options.model_validate({**given, **bound}), given


def test_with_penalties_masks_and_corrections_it_is_trls_dr_grpo():
    moved, seen = 0, set()
    for seed in range(400):
        case = drawn(seed)
        ours, theirs, given = both(seed)
        a = trl.advantages(case, theirs)
        torch.testing.assert_close(our_advantages(case, ours), a, rtol=1e-6, atol=1e-7)
        expected, _ = trl.loss(case, theirs, a)
        total = OURS.loss(inputs_of(case, ours, a), ours).total
        assert total.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12), given
        gradient = gradients(case, expected)
        torch.testing.assert_close(gradients(case, total), gradient, rtol=1e-9, atol=1e-12)
        moved += bool((gradient != 0).any())
        seen.update(f"{name} {value}" for name, value in given.items())
    assert moved > 320
    assert {f"samplerCorrection {mode}" for mode in ("none", "token_mask", "sequence_truncate")} <= seen
    assert {"beta 0.3", "entropyCoef 0.2", "topEntropyQuantile 0.5", "offPolicyMaskThreshold 0.02"} <= seen


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("std", [None, "population"])
def test_its_advantages_are_the_written_ones(baseline, std):
    for seed in range(60):
        scale = ["group", "batch"][seed % 2] if std else ["none", "group", "batch"][seed % 3]
        given = {"baseline": baseline, "scaleRewards": scale, **({"std": std} if std else {})}
        if seed % 4 == 0:
            given |= {"beta": 0.3, "klIn": "reward"}
        case, options = drawn(seed), PolicyGradient.model_validate(given)
        wanted = written_advantages(case, options)
        torch.testing.assert_close(our_advantages(case, options), wanted, rtol=1e-9, atol=1e-12)


def before(inputs, options):
    """As it was computed when it had no options in common with others."""
    low, high = options.epsilon_low, options.epsilon_high
    weight = weighed(importance(inputs.old, inputs.sampler).clamp(max=options.sampler_correction_max), inputs)
    kept = mismatch_mask(inputs, options)
    weight = weight if kept is None else weight * kept
    values = weight * surrogate(torch.exp(log_ratio(inputs, "token")), inputs.advantages, low, high)
    return -values.sum() / (inputs.rollouts * (options.normalizer_tokens or mean_length(inputs)))


@pytest.mark.parametrize(
    "given", [{}, {"normalizerTokens": 64}, {"mismatchMask": "sequence", "mismatchMin": 0.9}]
)
def test_without_them_it_has_the_bits_that_it_had(given):
    options = PolicyGradient.model_validate(given)
    for seed in range(60):
        case = drawn(seed)
        for name in ("now", "old", "sampler", "reference", "entropies"):
            setattr(case, name, getattr(case, name).detach().float().requires_grad_(name == "now"))
        case.entropies.requires_grad_()
        a = our_advantages(case, options).float()
        found = []
        for total in (
            loss(inputs_of(case, options, a), options).total,
            before(inputs_of(case, options, a), options),
        ):
            found.append((total.detach(), torch.autograd.grad(total, case.now)[0]))
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_what_older_plans_hold_is_read_as_it_was():
    import json

    import train_reference as reference

    plan = {"epsilonLow": 0.1, "importanceCap": 3.0, "scaleRewards": "group", "mismatchMask": "none"}
    assert parse_config(json.dumps(reference.config(loss=plan))).loss == PolicyGradient(
        epsilon_low=0.1, importance_cap=3.0, scale_rewards="group"
    )
    # The cap of every plan, also where nothing was corrected.
    idle = {**plan, "importanceCap": 2.0, "samplerCorrection": "none"}
    assert parse_config(json.dumps(reference.config(loss=idle))).loss.sampler_correction == "none"
    for wrong in ({"samplerCorrectionMin": 2.5}, {"klIn": "reward"}, {"samplerCorrectionMax": 4}):
        with pytest.raises(HoneWorkerError, match="loss"):
            parse_config(json.dumps(reference.config(loss=wrong)))
