"""What `forward_backward` is sent: sequences of ids with a target at each place, and what its loss asks for.

A safetensors file whose metadata carries the configuration, as for `/train`; the server made and checked it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.options import NotNegative, Strict
from hone_worker.train.primitives.losses import TokenLossOptions
from hone_worker.train.step_data import StepConfig, metadata_config

C = TypeVar("C", bound=Strict)


class ForwardConfig(Strict):
    operation_id: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    staging: Annotated[str, Field(min_length=1)]
    checkpoint: Annotated[str, Field(min_length=1)]
    loss: TokenLossOptions
    #: Divides the logits: that of the sampler, whose logprobs are compared. 0 is reported at 1.
    temperature: NotNegative
    #: plan[micro-batch] = sequences
    plan: list[list[int]]
    #: False: nothing has a gradient, and no file is written.
    backward: bool
    #: The folder of the gradient that this one is added to.
    gradient: Annotated[str, Field(min_length=1)] | None = None


class OptimConfig(StepConfig):
    #: The folder of the gradient that the optimizer goes along.
    gradient: Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class TokenData:
    """S sequences, one after another; all but `offsets` have an element for each token."""

    offsets: torch.Tensor  # int64 [S + 1]
    tokens: torch.Tensor  # int32
    targets: torch.Tensor  # int32
    weights: torch.Tensor  # float32
    logprobs: torch.Tensor  # float32
    advantages: torch.Tensor  # float32

    @property
    def sequences(self) -> int:
        return len(self.offsets) - 1


_DTYPES = {"offsets": torch.int64, "tokens": torch.int32, "targets": torch.int32}


def parse_forward(body: bytes) -> tuple[TokenData, ForwardConfig]:
    config = _valid(ForwardConfig, metadata_config(body))
    try:
        tensors = load(body)
    except (SafetensorError, ValueError, KeyError) as cause:
        raise _bad(f"The data is not a safetensors file: {cause}.") from cause
    total = len(tensors.get("tokens", ()))
    for field in fields(TokenData):
        tensor = tensors.get(field.name)
        wanted = _DTYPES.get(field.name, torch.float32)
        if tensor is None or tensor.dtype != wanted or tensor.dim() != 1:
            raise _bad(f"`{field.name}` must be a vector of {wanted}.", field.name)
        if field.name != "offsets" and len(tensor) != total:
            raise _bad(f"`{field.name}` has {len(tensor)} elements, {total} belong there.", field.name)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise _bad(f"`{field.name}` must be finite.", field.name)
    data = TokenData(**{field.name: tensors[field.name] for field in fields(TokenData)})
    offsets = data.offsets
    rises = len(offsets) > 1 and int(offsets[0]) == 0 and int(offsets[-1]) == total
    if not rises or not bool((offsets.diff() > 0).all()):
        raise _bad("`offsets` must rise from 0 to the number of tokens.", "offsets")
    if sorted(index for micro_batch in config.plan for index in micro_batch) != list(range(data.sequences)):
        raise _bad("`plan` must list every sequence once.", "plan")
    return data, config


def parse_optim(body: bytes) -> OptimConfig:
    return _valid(OptimConfig, body.decode())


def _valid(kind: type[C], text: str) -> C:
    try:
        return kind.model_validate_json(text)
    except ValidationError as cause:
        first: Any = cause.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "config"
        message = f"The option `{name}` is not valid: {first['msg']}."
        raise HoneWorkerError(message, code="bad_config", param=name) from cause


def _bad(message: str, param: str | None = None) -> HoneWorkerError:
    return HoneWorkerError(message, code="bad_batch", param=param)
