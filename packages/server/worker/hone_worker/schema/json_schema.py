"""What JSON Schema an answer can be held to, by llguidance's judgement. No torch: the renderer asks too.

Engines differ in what they know of JSON Schema, and some leave out in silence what they do not. One check
before any of them refuses a schema by name.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from hone_worker.process.errors import HoneWorkerError
from hone_worker.schema.plain_schema import UnclearSchema, plain_schema

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

PARAM = "response_format.json_schema.schema"
#: White space as `json.dumps` writes it: a model that may write spaces without end would do so.
#: A schema cannot change these options. What the library does not know is refused, never left out.
OPTIONS: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
}
ANY_OBJECT: dict[str, Any] = {"type": "object"}


def check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as engines take it. This may need time and memory without limit: see schema_process."""
    plain = _plain(schema)
    try:
        with panics_as_errors():
            failed, says = LLMatcher.validate_grammar_with_warnings(source_of(plain))
    except ValueError as error:
        raise unsupported(str(error)) from error
    if failed:
        raise unsupported(" ".join(says))
    return plain


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        return plain_schema(schema)
    except UnclearSchema as error:
        raise unsupported(str(error)) from error


def source_of(schema: dict[str, Any]) -> str:
    """The grammar in the library's own language. Reading it may still fail."""
    plain = _plain(schema)
    try:
        with panics_as_errors():
            return LLMatcher.grammar_from_json_schema(json.dumps(plain), overrides=OPTIONS)
    except ValueError as error:
        raise unsupported(str(error)) from error


@contextlib.contextmanager
def panics_as_errors() -> Iterator[None]:
    """Around calls of the library. What it panics on is no Exception, and would pass every handler of a request.

    Raises ValueError in its place, as the library does of what it refuses.
    """
    try:
        yield
    except BaseException as error:
        # Each such library has a class of its own, which it does not export.
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"panic: {error}") from error


def unsupported(problem: str) -> HoneWorkerError:
    """The library's error message, without its advice about options that do not exist here."""
    line = problem.strip().splitlines()[-1 if "regex parse error" in problem else 0]
    line = re.sub(r"\.?\s*Enable 'coerce_one_of'.*", " (anyOf is)", line).rstrip(". ")
    line = re.sub(r"^panic: ", "the library that makes grammars fails on it: ", line)
    return HoneWorkerError(
        f"This schema is not supported: {line}. Leave that part out, or say it otherwise.",
        code="unsupported_schema",
        param=PARAM,
    )
