"""Losses by name: a file each. A new one is a file, a line here, and its options in core's train-config.ts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from hone_worker.train.objectives import (
    bnpo,
    bradley_terry,
    cispo,
    dapo,
    distill,
    dpo,
    dr_grpo,
    grpo,
    gspo,
    importance_sampling,
    luspo,
    policy_gradient,
    rloo,
    sapo,
    sft,
    vespo,
)
from hone_worker.train.objectives.custom import CUSTOM, Custom
from hone_worker.train.objectives.objective import Objective
from hone_worker.train.options import Options

_FILES = (
    *(policy_gradient, grpo, dr_grpo, dapo, bnpo, gspo, luspo, cispo, sapo, vespo, rloo),
    *(importance_sampling, distill, sft, dpo, bradley_terry),
)
OBJECTIVES: dict[str, Objective] = {file.OBJECTIVE.name: file.OBJECTIVE for file in _FILES}

#: Plans that were stored before there was a choice name none.
DEFAULT = policy_gradient.OBJECTIVE.name


class _ByType:
    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schemas = {name: handler.generate_schema(objective.options) for name, objective in OBJECTIVES.items()}
        union = core_schema.tagged_union_schema(
            {**schemas, "custom": handler.generate_schema(Custom)},
            discriminator=_type_of,
            custom_error_type="unknown_objective",
            custom_error_message=f"`type` is one of {', '.join(OBJECTIVES)}",
        )
        return core_schema.no_info_after_validator_function(_resolved, union)


def _resolved(value: Options | Custom) -> Options:
    return value.resolved() if isinstance(value, Custom) else value


def _type_of(value: Any) -> Any:
    if isinstance(value, Options):
        return getattr(value, "type", DEFAULT)
    return value.get("type", DEFAULT) if isinstance(value, dict) else None


#: In a pydantic model: the options of the objective that `type` names.
LossOptions = Annotated[Options, _ByType()]


def objective_of(options: Options) -> Objective:
    name = _type_of(options)
    return OBJECTIVES[name] if name in OBJECTIVES else CUSTOM[name].objective
