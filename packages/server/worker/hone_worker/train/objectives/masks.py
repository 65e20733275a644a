"""Which tokens a loss leaves out by their probabilities. True keeps a token; the order of masks does not matter."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.objectives.policy_options import (
    DEFAULT_MISMATCH_MAX,
    DEFAULT_MISMATCH_MIN,
    MaskOptions,
    MismatchOptions,
)
from hone_worker.train.objectives.ratios import rollout_mean
from hone_worker.train.sums import Metrics, PerRollout


def mismatch_mask(inputs: LossInputs, options: MismatchOptions) -> torch.Tensor | None:
    """Keeps what sampler and trainer agree on: pi_o / pi_s within [min, max].

    "token" is IcePop (arXiv 2510.18855); "sequence" takes the geometric mean over the rollout, as the
    sequence-level rejection of verl and prime-rl does. With one optimizer step the ratio to pi_o is 1: then this is
    what keeps a stale sample from moving the policy far.
    """
    if options.mismatch_mask == "none":
        return None
    gap = (inputs.old - inputs.sampler).detach()
    ratio = torch.exp(rollout_mean(gap, inputs) if options.mismatch_mask == "sequence" else gap)
    low = DEFAULT_MISMATCH_MIN if options.mismatch_min is None else options.mismatch_min
    high = DEFAULT_MISMATCH_MAX if options.mismatch_max is None else options.mismatch_max
    return (ratio >= low) & (ratio <= high)


def off_policy_mask(inputs: LossInputs, options: MaskOptions) -> torch.Tensor | None:
    """DeepSeek-V3.2's (arXiv 2512.02556): leaves out a rollout that was worse than its group's and that the policy
    has moved away from, mean(log pi_s - log pi) > threshold. TRL's `get_off_policy_mask`.
    """
    if options.off_policy_mask_threshold is None:
        return None
    drift = rollout_mean((inputs.sampler - inputs.logprobs).detach(), inputs)
    return (inputs.advantages >= 0) | (drift <= options.off_policy_mask_threshold)


def masks(inputs: LossInputs, options: MaskOptions) -> dict[str, torch.Tensor]:
    """Those that the options ask for, by name. The entropy's is arXiv 2506.01939's: only forking tokens train."""
    found = {
        "off_policy": off_policy_mask(inputs, options),
        "entropy": inputs.high_entropy,
        "mismatch": mismatch_mask(inputs, options),
    }
    return {name: mask for name, mask in found.items() if mask is not None}


def masked(sums: Mapping[str, PerRollout]) -> Metrics:
    """The share of tokens that each mask left out, `masked/{name}`."""
    return {name: values.mean for name, values in sums.items() if name.startswith("masked/")}
