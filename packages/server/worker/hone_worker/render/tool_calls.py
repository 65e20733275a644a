"""What is a call, and what a policy merely wrote like one."""

from __future__ import annotations

import json
import re
from typing import Any

from renderers import parsers, parsing

Call = dict[str, Any]
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def strict_json(text: str) -> Any:
    """Raises JSONDecodeError for whatever is wrong: nested too deeply, a number of too many digits, and NaN and
    Infinity, which are not JSON."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(str(error), text, 0) from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class _StrictJson:
    """What the library's parsers take for `json`: of the errors that a model's JSON causes they expect one kind."""

    JSONDecodeError = json.JSONDecodeError
    dumps = staticmethod(json.dumps)
    loads = staticmethod(strict_json)


for _module in (parsing, parsers):
    setattr(_module, "json", _StrictJson)  # noqa: B010


def as_call(name: Any, arguments: Any) -> Call | None:
    """Only with a name that is text and an object as arguments."""
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    try:
        written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):  # 1e999, or nested too deeply to be written again
        return None
    return {"name": whole(name), "arguments": whole(written), "id": None}


def call_of(text: str) -> Call | None:
    """A call as Hermes and Llama write it, which differ in the word for the arguments."""
    try:
        written = strict_json(text)
    except ValueError:
        return None
    if not isinstance(written, dict):
        return None
    return as_call(written.get("name"), written.get("arguments", written.get("parameters")))


def whole(text: str) -> str:
    """Half a character, which JSON's escapes can spell and UTF-8 cannot, becomes U+FFFD."""
    return HALF_CHARACTER.sub("\ufffd", text)
