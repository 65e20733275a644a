"""Options that the reinforcement objectives have in common, in core's spelling: `train/objectives` has the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from hone_worker.train.options import NotNegative, Options, Positive

Clip = Annotated[float, Field(gt=0, le=1)]
#: An option that was not given. What it then is stands where it is used.
Unset = SkipJsonSchema[None]
Correction = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]

#: IcePop's bounds in INTELLECT-3 (arXiv 2512.16144, eq. 1).
DEFAULT_MISMATCH_MIN, DEFAULT_MISMATCH_MAX = 0.5, 5.0
#: TRL's `vllm_importance_sampling_clip_max`.
DEFAULT_CORRECTION_MAX = 3.0
#: That of the default objective.
DEFAULT_IMPORTANCE_CAP = 2.0

#: An option acts only while another is one of these values: core's `actsWith`.
ACTS_WITH: list[tuple[str, str, Callable[[Any], bool]]] = [
    ("std", "scale_rewards", lambda scale: scale != "none"),
    ("sampler_correction_min", "sampler_correction", lambda correction: correction != "none"),
    ("sampler_correction_max", "sampler_correction", lambda correction: correction != "none"),
    ("importance_cap", "sampler_correction", lambda correction: correction != "none"),
    ("mismatch_min", "mismatch_mask", lambda mask: mask != "none"),
    ("mismatch_max", "mismatch_mask", lambda mask: mask != "none"),
    ("kl_in", "beta", lambda beta: beta > 0),
    ("kl_estimator", "beta", lambda beta: beta > 0),
    ("kl_bias_correction", "beta", lambda beta: beta > 0),
    ("kl_bias_correction", "kl_in", lambda place: place != "reward"),
    ("measure_kl", "beta", lambda beta: beta == 0),
]


#: Bounds that lie the wrong way round train nothing: core's `bounds`. The numbers are those of bounds not given.
BOUNDS: list[tuple[tuple[str, float], tuple[str, float]]] = [
    (("mismatch_min", DEFAULT_MISMATCH_MIN), ("mismatch_max", DEFAULT_MISMATCH_MAX)),
    (("sampler_correction_min", 0.0), ("sampler_correction_max", DEFAULT_CORRECTION_MAX)),
]


class Acting(Options):
    """Options of which none does nothing."""

    @model_validator(mode="after")
    def _acts(self) -> Self:
        fields = type(self).model_fields
        for name, other, acts in ACTS_WITH:
            if name not in fields or other not in fields or getattr(self, name) in (None, False):
                continue
            if name == "importance_cap" and getattr(self, name) == DEFAULT_IMPORTANCE_CAP:
                continue  # plans of earlier versions hold it where nobody gave it
            if not acts(getattr(self, other)):
                raise ValueError(f"`{fields[name].alias}` does nothing with this `{fields[other].alias}`")
        for (low, least), (high, most) in BOUNDS:
            # The upper bound of the default objective has a name of its own.
            above = fields[high if high in fields else "importance_cap"].alias if low in fields else None
            if above and (getattr(self, low) or least) >= (getattr(self, high) or most):
                raise ValueError(f"`{fields[low].alias}` must lie below `{above}`")
        beta, measure_kl, reference = (
            getattr(self, name, None) for name in ("beta", "measure_kl", "reference")
        )
        if reference is not None and measure_kl is False and not beta:
            raise ValueError("`reference` does nothing: `beta` is 0, and `measureKl` is false")
        if measure_kl is False and beta:
            raise ValueError("`measureKl` does nothing with this `beta`: what the KL weighs in is measured")
        delta = getattr(self, "delta", None)
        if delta is not None and delta <= 1:
            raise ValueError(
                "`delta` must be above 1: no token with a positive advantage would have a gradient"
            )
        return self


class MismatchOptions(Acting):
    mismatch_mask: Literal["none", "token", "sequence"] = "none"
    mismatch_min: Positive | Unset = None
    mismatch_max: Positive | Unset = None


class DriftOptions(Acting):
    """What `kl` is measured against, and on which tokens: a sample of them if nothing is given."""

    measure_kl: bool | Unset = None
    reference: Literal["base"] | Annotated[int, Field(ge=0, le=1_000_000_000)] | Unset = None


class MaskOptions(MismatchOptions):
    off_policy_mask_threshold: Positive | Unset = None
    top_entropy_quantile: Annotated[float, Field(gt=0, le=1)] = 1.0


class CorrectionOptions(Acting):
    sampler_correction: Correction = "sequence_mask"
    sampler_correction_min: Positive | Unset = None
    sampler_correction_max: Positive | Unset = None


class PenaltyOptions(MaskOptions, DriftOptions):
    """A KL to the base, or to a fixed policy, in the reward, and an entropy bonus."""

    beta: NotNegative = 0.0
    kl_estimator: Literal["k1", "k2", "k3"] | Unset = None
    entropy_coef: NotNegative = 0.0

    @property
    def kl_place(self) -> str:
        return "reward"

    @property
    def corrects_kl(self) -> bool:
        return False


class PolicyOptions(PenaltyOptions):
    """What most have: their advantages, and a choice of where the KL stands."""

    scale_rewards: Literal["none", "group", "batch"] = "group"
    std: Literal["sample", "population"] | Unset = None
    baseline: Literal["mean", "leave_one_out"] = "mean"
    kl_in: Literal["loss", "reward"] | Unset = None
    kl_bias_correction: bool | Unset = None

    @property
    def kl_place(self) -> str:
        return self.kl_in or "loss"

    @property
    def corrects_kl(self) -> bool:
        return bool(self.kl_bias_correction)


class LevelOptions(CorrectionOptions, PolicyOptions):
    importance_level: Literal["token", "sequence"] = "token"


class Clips(CorrectionOptions):
    """A clipped ratio, whatever it is the ratio of."""

    epsilon_low: Clip = 0.2
    epsilon_high: Positive = 0.2
    delta: Positive | Unset = None


class ClipOptions(Clips, LevelOptions):
    """One whose level is chosen."""
