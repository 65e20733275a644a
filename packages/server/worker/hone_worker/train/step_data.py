"""The training data as it arrives: one safetensors file whose metadata carries the configuration.

Everything a sender can get wrong is refused here, by name, so that the trainer can trust what it holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.objectives import DEFAULT, OBJECTIVES, LossOptions, objective_of
from hone_worker.train.options import NotNegative, Options, Positive, Share, Strict

#: In `completion_policy`: whoever wrote the completion, it was no policy of this model.
UNSAMPLED = -1


class LoraConfig(Strict):
    r: Annotated[int, Field(ge=1)]
    alpha: Positive
    target_modules: list[str] | None = None


class OptimizerConfig(Options):
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    learning_rate: Positive = 1e-4
    beta1: Share = 0.9
    beta2: Share = 0.95
    # Below the gradient of any step, so that a step's length is the rate's whatever the answers' length and the
    # rewards' size; above 1e-19, where the squares of gradients leave float32.
    eps: Positive = 1e-16
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 5

    @property
    def betas(self) -> list[float]:
        return [self.beta1, self.beta2]

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, values: Any) -> Any:
        """Plans that were stored before core's options went through unchanged have both betas in a list."""
        if not isinstance(values, dict) or {"beta1", "beta2"} & values.keys():
            return values
        if not isinstance(values.get("betas"), list) or len(values["betas"]) != 2:
            return values
        rest = {name: value for name, value in values.items() if name != "betas"}
        beta1, beta2 = values["betas"]
        return {**rest, "beta1": beta1, "beta2": beta2}


class StepConfig(Strict):
    """What makes policy N+1 of policy N, whatever its gradient comes from."""

    operation_id: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    step: Annotated[int, Field(ge=1)]
    staging: Annotated[str, Field(min_length=1)]
    checkpoint: Annotated[str, Field(min_length=1)]
    lora: LoraConfig
    optimizer: OptimizerConfig
    seed: int


class TrainConfig(StepConfig):
    loss: LossOptions = OBJECTIVES[DEFAULT].options()
    # plan[optimizer step][micro-batch] = leaf completions
    plan: list[list[list[int]]]
    # Whether a micro-batch is one row of prefix trees, or a padded row for each leaf. Plans that were stored
    # before there was a choice are of rows, and have to give the same bits when they are redone.
    packing: Literal["rows", "tree"] = "rows"
    max_mismatch: Positive = 0.1
    # The folder of the policy that an objective measures against; None: the base with the adapter off.
    reference: Annotated[str, Field(min_length=1)] | None = None
    # "auto" takes the sampler's logprobs for the old ones where the first micro-batch shows that they are the same.
    # Plans that were stored before there was a choice are of "trainer", which computes them.
    old_logprobs: Literal["trainer", "auto"] = "trainer"
    # The step is computed and told of; nothing is trained or written.
    evaluate: bool = False


@dataclass(frozen=True)
class StepData:
    """C completions in R rewarded rollouts. A completion's sequence is its parent's followed by its suffix."""

    tokens: torch.Tensor
    sampled: torch.Tensor
    logprobs: torch.Tensor
    completion_offsets: torch.Tensor
    completion_parent: torch.Tensor
    completion_rollout: torch.Tensor
    completion_temperature: torch.Tensor
    completion_policy: torch.Tensor
    completion_trainable: torch.Tensor
    completion_truncated: torch.Tensor
    completion_cut: torch.Tensor
    rollout_reward: torch.Tensor
    rollout_group: torch.Tensor
    rollout_trainable: torch.Tensor
    completion_weight: torch.Tensor | None = None
    #: Logprobs of each token under whatever an objective measures against; NaN where there is none.
    reference: torch.Tensor | None = None
    # What takes the place of the rollout's reward, and of the advantage that follows from it; NaN: nothing.
    completion_reward: torch.Tensor | None = None
    completion_advantage: torch.Tensor | None = None

    @property
    def completions(self) -> int:
        return len(self.completion_parent)

    @property
    def rollouts(self) -> int:
        return len(self.rollout_reward)


_DTYPES = {
    "tokens": torch.int32,
    "sampled": torch.uint8,
    "logprobs": torch.float32,
    "completion_offsets": torch.int64,
    "completion_parent": torch.int32,
    "completion_rollout": torch.int32,
    "completion_temperature": torch.float32,
    "completion_policy": torch.int32,
    "completion_trainable": torch.uint8,
    "completion_truncated": torch.uint8,
    "completion_cut": torch.uint8,
    "rollout_reward": torch.float64,
    "rollout_group": torch.int32,
    "rollout_trainable": torch.uint8,
}
# Of tensors that may be left out: without weights every token weighs 1, without a reference the trainer computes it.
_OPTIONAL = {
    "completion_weight": torch.float32,
    "completion_reward": torch.float64,
    "completion_advantage": torch.float64,
    "reference": torch.float32,
}


def parse_step_data(body: bytes) -> tuple[StepData, TrainConfig]:
    """The step data and the configuration of one training operation, checked against each other."""
    config = parse_config(metadata_config(body))
    try:
        tensors = load(body)
    except (SafetensorError, ValueError, KeyError) as cause:
        raise _bad(f"The step data is not a safetensors file: {cause}.") from cause
    data = _step_data(tensors)
    _check_plan(data, config)
    _check_sampled(data, config)
    if (newest := int(data.completion_policy.max())) >= config.step:
        raise _bad(
            f"A completion was sampled from policy {newest}, but this step makes policy {config.step}.",
            "completion_policy",
        )
    return data, config


def parse_config(text: str) -> TrainConfig:
    try:
        return TrainConfig.model_validate_json(text)
    except ValidationError as cause:
        first = cause.errors()[0]
        # Which objective a loss's option belongs to is no part of the option's name.
        name = ".".join(str(part) for part in first["loc"] if part not in OBJECTIVES) or "config"
        if first["type"] == "extra_forbidden":
            message = f"The trainer has no option `{name}`. Remove it, or correct its spelling."
        else:
            message = f"The option `{name}` is not valid: {first['msg']}."
        raise HoneWorkerError(message, code="bad_config", param=name) from cause


def metadata_config(body: bytes) -> str:
    """The configuration, as JSON, of a safetensors body."""
    size = int.from_bytes(body[:8], "little")
    if len(body) < 8 or size > len(body) - 8:
        raise _bad("The step data is not a safetensors file: its header is longer than the file.")
    try:
        header = json.loads(body[8 : 8 + size])
        return str(header["__metadata__"]["config"])
    except (ValueError, KeyError, TypeError) as cause:
        raise _bad("The step data has no `config` in its safetensors metadata.", "config") from cause


def _step_data(tensors: dict[str, torch.Tensor]) -> StepData:
    dtypes = {**_DTYPES, **{name: dtype for name, dtype in _OPTIONAL.items() if name in tensors}}
    for name in tensors:
        if name not in dtypes:
            raise _bad(f"The step data holds a tensor `{name}` that the trainer does not know.", name)
    for name, dtype in dtypes.items():
        if name not in tensors:
            raise _bad(f"The step data lacks the tensor `{name}`.", name)
        if tensors[name].dtype != dtype or tensors[name].dim() != 1:
            found = f"{tensors[name].dtype}{list(tensors[name].shape)}"
            raise _bad(f"`{name}` must be a vector of {dtype}, it is {found}.", name)
    data = StepData(**tensors)
    total, completions, rollouts = len(data.tokens), data.completions, data.rollouts
    if completions == 0 or rollouts == 0:
        raise _bad("The step data holds no completion or no rollout.")
    for names, length in (
        ([n for n in ("sampled", "logprobs", "reference") if n in dtypes], total),
        (("completion_offsets",), completions + 1),
        ([n for n in dtypes if n.startswith("completion_") and n != "completion_offsets"], completions),
        ([n for n in dtypes if n.startswith("rollout_")], rollouts),
    ):
        for name in names:
            if len(tensors[name]) != length:
                raise _bad(f"`{name}` has {len(tensors[name])} elements, {length} belong there.", name)
    _check_values(data)
    return data


def _check_values(data: StepData) -> None:
    offsets, parent = data.completion_offsets, data.completion_parent
    _require(
        int(offsets[0]) == 0 and int(offsets[-1]) == len(data.tokens) and bool((offsets.diff() >= 0).all()),
        "completion_offsets",
        "must rise from 0 to the number of tokens",
    )
    earlier = parent < torch.arange(data.completions)
    _require(
        (parent >= -1).all() and earlier.all(), "completion_parent", "must be -1 or an earlier completion"
    )
    rollout = data.completion_rollout
    _require(
        (rollout >= 0).all() and (rollout < data.rollouts).all(),
        "completion_rollout",
        "names a rollout that is not in the step data",
    )
    temperature = data.completion_temperature
    _require(
        temperature.isfinite().all() and (temperature >= 0).all(),
        "completion_temperature",
        "must be finite and not negative",
    )
    for name in ("tokens", "rollout_group"):
        _require((getattr(data, name) >= 0).all(), name, "must not be negative")
    _require((data.completion_policy >= UNSAMPLED).all(), "completion_policy", "must not be below -1")
    flags = ("sampled", "completion_trainable", "completion_truncated", "completion_cut", "rollout_trainable")
    for name in flags:
        _require((getattr(data, name) <= 1).all(), name, "must be 0 or 1")
    if (weight := data.completion_weight) is not None:
        _require(
            weight.isfinite().all() and (weight >= 0).all(),
            "completion_weight",
            "must be finite and not negative",
        )
    for name in ("completion_reward", "completion_advantage"):
        if (given := getattr(data, name)) is not None:
            _require(not given.isinf().any(), name, "must be finite, or NaN for none")
    _require(
        data.logprobs.isfinite().all() and (data.logprobs <= 1e-3).all(),
        "logprobs",
        "must be finite logarithms of probabilities",
    )
    if data.reference is not None:
        known = data.reference[~data.reference.isnan()]
        _require(
            known.isfinite().all() and (known <= 1e-3).all(),
            "reference",
            "must be finite logarithms of probabilities, or NaN",
        )
    # A sequence's first token is predicted from nothing, so nobody can have sampled it.
    starts, above = offsets.tolist(), parent.tolist()
    begun: list[bool] = []  # whether a sequence has a token up to and including this completion
    for completion, (start, end) in enumerate(pairwise(starts)):
        before = above[completion] >= 0 and begun[above[completion]]
        begun.append(before or end > start)
        if not before and end > start and data.sampled[start]:
            raise _bad(
                f"`sampled` marks the first token of the sequence of completion {completion}.", "sampled"
            )


def _check_sampled(data: StepData, config: TrainConfig) -> None:
    objective = objective_of(config.loss)
    needs = objective.needs(config.loss)
    reward = data.rollout_reward
    # NaN says that a rollout has none.
    known = reward.isfinite() if needs.rewards else ~reward.isinf()
    _require(known.all(), "rollout_reward", "must be finite")
    _require(
        data.reference is None or (needs.reference and not needs.rewards),
        "reference",
        f"gives logprobs that {objective.name} does not measure against",
    )
    foreign = (data.completion_policy == UNSAMPLED) & data.completion_trainable.bool()
    _require(
        objective.unsampled or not foreign.any(),
        "completion_policy",
        f"says that no policy of ours sampled some of the completions, and {objective.name} corrects for the sampler",
    )


def _check_plan(data: StepData, config: TrainConfig) -> None:
    parents = set(data.completion_parent.tolist())
    seen: set[int] = set()
    for step in config.plan:
        for micro_batch in step:
            for leaf in micro_batch:
                where = f"lists completion {leaf}, which"
                _require(0 <= leaf < data.completions, "plan", f"{where} is not in the step data")
                _require(leaf not in parents, "plan", f"{where} is the parent of another: list its leaves")
                _require(leaf not in seen, "plan", f"lists completion {leaf} twice")
                seen.add(leaf)
            _require(micro_batch, "plan", "holds an empty micro-batch")
        _require(step, "plan", "holds an empty optimizer step")


def _require(holds: object, name: str, message: str) -> None:
    if not holds:
        raise _bad(f"`{name}` {message}.", name)


def _bad(message: str, param: str | None = None) -> HoneWorkerError:
    return HoneWorkerError(message, code="bad_batch", param=param)
