"""Options that an operation's author chooses: declared in core's train-config.ts, passed through unchanged."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    # Configuration is sent by a program: a string where a number belongs is a mistake, not a spelling.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Options(Strict):
    """Spelt as in core. A test holds the two to the same names, bounds and defaults.

    Operations that were planned before options went through unchanged are spelt in snake_case, and are redone.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
