"""Objectives of the operator's own: a Python file with an `OBJECTIVE`, as the files beside this one have."""

from __future__ import annotations

import functools
import hashlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError

from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.objectives.objective import Needs, Objective
from hone_worker.train.options import Options, Strict


@dataclass(frozen=True)
class CustomObjective:
    objective: Objective
    file: Path
    sha256: str  # of the file, as it was when it was loaded

    def options(self, given: Mapping[str, Any]) -> Options:
        """Read by the objective's own model; raises `bad_config` with the name of what is wrong."""
        try:
            options = self.objective.options.model_validate(dict(given))
        except ValidationError as cause:
            first = cause.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "options"
            raise HoneWorkerError(
                f"The objective {self.objective.name} does not take this `{name}`: {first['msg']}.",
                code="bad_config",
                param=f"options.{name}",
            ) from cause
        if self.objective.needs(options).whole_groups:
            raise HoneWorkerError(
                f"The objective {self.objective.name} asks for whole groups, and the plans of one's own objectives "
                "keep rollouts whole, not groups. Write a loss that looks at one rollout at a time.",
                code="bad_config",
                param="options",
            )
        return options


#: By name: what the worker was started with.
CUSTOM: dict[str, CustomObjective] = {}


class Custom(Strict):
    """What the server sends in place of built-in options."""

    type: Literal["custom"]
    name: str
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def resolved(self) -> Options:
        found = custom(self.name)
        if found.sha256 != self.sha256:
            raise HoneWorkerError(
                f"This step was planned with another {found.file.name}: the objective {self.name} has changed since. "
                "Start the server with the file as it was, or train anew.",
                code="objective_changed",
                param="loss.name",
            )
        return found.options(self.options)


def custom(name: str) -> CustomObjective:
    if name in CUSTOM:
        return CUSTOM[name]
    known = f"it has {', '.join(CUSTOM)}" if CUSTOM else "it has none"
    raise HoneWorkerError(
        f"The server has no objective `{name}` of its own ({known}). Start it with --objectives and the file that "
        "registers it.",
        code="bad_config",
        param="name",
    )


def load_objectives(file: Path, taken: Mapping[str, Objective]) -> Objective:
    """Runs the file and registers its `OBJECTIVE`. It is the operator's code, as trusted as the worker's own."""
    try:
        code = file.read_bytes()
        module = ModuleType(f"hone_objectives_{len(CUSTOM)}")
        module.__file__ = str(file)
        sys.modules[module.__name__] = module  # where pydantic looks the names of its annotations up
        # Not by an import: it may run a cached compilation of an earlier file, and the hash is of this one.
        exec(compile(code, str(file), "exec"), module.__dict__)
    except Exception as cause:
        raise _bad(file, f"it cannot be run: {cause!r}") from cause
    objective = getattr(module, "OBJECTIVE", None)
    if not isinstance(objective, Objective):
        raise _bad(file, "it has no OBJECTIVE, an Objective of hone_worker.train.objectives.objective")
    of = objective.options
    kind = of.model_fields.get("type") if isinstance(of, type) and issubclass(of, Options) else None
    if kind is None or not isinstance(kind.default, str):
        raise _bad(
            file,
            'its options are a class of hone_worker.train.options.Options with `type: Literal["…"] = "…"`',
        )
    if objective.name in taken or objective.name in CUSTOM:
        raise _bad(file, f"there is an objective `{objective.name}` already, choose another `type`")
    told = _telling(file, objective.name)
    objective = replace(
        objective,
        advantages=told(objective.advantages),
        loss=told(objective.loss),
        report=told(objective.report),
        needs=_whole(told(objective.needs)),
    )
    CUSTOM[objective.name] = CustomObjective(objective, file, hashlib.sha256(code).hexdigest())
    return objective


def _telling(file: Path, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What fails in the operator's code is told with its place in the file: only they can mend it."""

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any) -> Any:
            try:
                return function(*args)
            except (HoneWorkerError, torch.OutOfMemoryError):
                raise
            except Exception as cause:
                lines = [
                    at.lineno for at in traceback.extract_tb(cause.__traceback__) if at.filename == str(file)
                ]
                place = f"{file.name}:{lines[-1]}" if lines else file.name
                raise HoneWorkerError(
                    f"The objective {name} failed at {place}: {cause!r}", code="bad_objective", status=500
                ) from cause

        return run

    return told


def _whole(needs: Callable[[Any], Needs]) -> Callable[[Any], Needs]:
    """Nobody knows what its code looks at, so its plans keep rollouts whole, and pi_o is the trainer's."""
    return lambda options: replace(needs(options), whole_rollouts=True, compares_sampler=True)


def _bad(file: Path, why: str) -> HoneWorkerError:
    return HoneWorkerError(
        f"--objectives {file}: {why}. docs/objectives.md has an example.", code="bad_objective", status=500
    )
