"""Grammars of answers that have to call: one or several calls of these tools, as this base writes them.

How a base writes a call is read from what its own renderer writes. That works for bases whose call is one JSON object
with name and arguments between two marks; for the others there is no grammar, and the request is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.family import CALL, CALLED, QUESTION, TOOL
from hone_worker.schema.json_schema import OPTIONS

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_WRITTEN = re.compile(
    re.escape(OPEN)
    + r'(\s*)\{"name": "look", "arguments": \{"cell": "a1", "deep": true\}\}(\s*)'
    + re.escape(CLOSE)
)
#: All schemas of a request together: a longer grammar would hold up the engine.
LONGEST = 64 * 1024


@dataclass(frozen=True)
class CallForm:
    """White space inside of the marks and between two calls, and the marks' ids where they are tokens."""

    before: str
    behind: str
    between: str
    open_id: int | None
    close_id: int | None


def call_form(renderer: Any, tokenizer: Any) -> CallForm | None:
    """None where this base writes calls in another way."""
    try:
        twice = [QUESTION, {**CALLED, "tool_calls": [CALL, {**CALL, "id": "call_2"}]}]
        text = tokenizer.decode(
            renderer.render_ids(twice, tools=[TOOL], add_generation_prompt=False), skip_special_tokens=False
        )
    except Exception:  # a template may refuse two calls in one answer
        return None
    # The tools' description may show an example of a call, which has other names.
    first, second = [*_WRITTEN.finditer(text), None, None][:2]
    if first is None or second is None:
        return None
    between = text[first.end() : second.start()]
    if between.strip():
        return None
    added = tokenizer.get_added_vocab()
    return CallForm(first[1], first[2], between, added.get(OPEN), added.get(CLOSE))


def arguments_of(tool: dict[str, Any], index: int) -> dict[str, Any]:
    """The schema of a tool's arguments, which are an object."""
    schema = tool["function"].get("parameters") or {}
    if schema.get("type", "object") != "object":
        raise HoneWorkerError(
            f"The arguments of the tool {tool['function']['name']!r} are an object: its parameters need the type 'object'.",
            code="unsupported_schema",
            param=f"tools[{index}].function.parameters",
        )
    return {"type": "object", **schema}


def call_grammar(
    form: CallForm, tools: dict[str, dict[str, Any]], *, single: bool, final: dict[str, Any] | None
) -> str:
    """In llguidance's language. `tools` are the schemas of their arguments by name. With `final` the answer may be an
    object of that schema in place of calls.

    The schemas have passed the check of every schema, and are spelled as it gave them.
    """
    if len(json.dumps([*tools.values(), final])) > LONGEST:
        raise HoneWorkerError(
            f"The schemas of the tools that may be called have at most {LONGEST} characters of JSON together. "
            'Name fewer tools in tool_choice, or send "auto" without response_format.',
            code="unsupported_schema",
            param="tools",
        )
    begin = _mark(OPEN, form.open_id) + _text(form.before)
    end = _text(form.behind) + _mark(CLOSE, form.close_id)
    names = [json.dumps(name, ensure_ascii=False) for name in tools]
    one = " | ".join(_text(f'{name}, "arguments": ') + f"args{i}" for i, name in enumerate(names))
    more = "" if single else f" ({_text(form.between)}call)*"
    lines = [
        f"start: call{more}" + (" | final" if final is not None else ""),
        "call: " + begin + _text('{"name": ') + f"({one}) " + _text("}") + end,
        *(f"args{i}: {_json(schema)}" for i, schema in enumerate(tools.values())),
        *([f"final: {_json(final)}"] if final is not None else []),
    ]
    return "\n".join(lines) + "\n"


def _mark(text: str, token: int | None) -> str:
    return f"<[{token}]> " if token is not None else _text(text) + " "


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) + " " if text else ""


def _json(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': OPTIONS})}"
