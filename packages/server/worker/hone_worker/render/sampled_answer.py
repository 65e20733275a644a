"""Sampled ids → content, reasoning and tool calls. Nothing that a policy samples is an error.

A call is a call only where the request has tools, its name is a text and its arguments are an object. All else
is text, and stands where it was sampled: before, between and behind the calls.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from renderers import ParsedResponse, ToolCallParseStatus

from hone_worker.render.base import RenderedBase
from hone_worker.render.tool_calls import Call, as_call, call_of, whole

log = logging.getLogger("hone_worker.renderer")

# A call of theirs is one JSON object with name and arguments.
JSON_CALLS = {"lean", "qwen3", "qwen3-vl", "default", "llama-3"}
# What may stand in a call that is written in tags. Their parsers overlook whatever else does, a misspelt
# parameter too, and would call with the rest.
XML = re.compile(r"<function=[^>]+>|</function>|<parameter=[^>]+>.*?</parameter>", re.DOTALL)
INVOKE = re.compile(r'<invoke name="[^"]+">|</invoke>|<parameter name="[^"]+">.*?</parameter>', re.DOTALL)
PAIRS = re.compile(
    r"\A[^<]*(?:<tool_sep>)?"
    r"|<arg_key>(?:(?!</?arg_).)*</arg_key>\s*<arg_value>(?:(?!</arg_value>).)*</arg_value>",
    re.DOTALL,
)
TAGS = {
    **dict.fromkeys(["qwen3.5", "qwen3.6", "qwen3.8", "prime-qwen3"], XML),
    **dict.fromkeys(["nemotron-3", "nemotron-3-ultra", "nemotron-3.5"], XML),
    **dict.fromkeys(["glm-4.5", "glm-5", "glm-5.1", "glm-5.3"], PAIRS),
    **dict.fromkeys(["laguna-xs.2", "laguna-m.1", "laguna-xs-2.1", "laguna-s-2.1"], PAIRS),
    "minimax-m2": INVOKE,
}
# The parsers of these give all text of an answer. Those of the others give only the text before the first call.
WHOLE_CONTENT = {"glm-4.5", "glm-5", "glm-5.1", "glm-5.3", "gpt-oss", "inkling", "gemma4"}


def read_answer(
    base: RenderedBase, ids: list[int], tools: list[Any] | None, visible: str | None = None
) -> dict[str, Any]:
    """`visible` is the text up to a stop string: what was sampled behind it is no part of the answer."""
    if visible is not None:
        ids = _up_to(base, ids, visible)
    end = next((i for i, token in enumerate(ids) if token in base.stop_token_ids), len(ids))
    try:
        parsed = _parse(base, ids, tools)
    except Exception as error:
        # A parser that stumbles over what was sampled must not lose it.
        log.warning("the answer could not be parsed, all of it is text", exc_info=error)
        parsed = ParsedResponse(base.tokenizer.decode(ids[:end], skip_special_tokens=True), None, [])
    calls = [(call, _as_call(base, call) if tools else None) for call in parsed.tool_calls]
    content = _without_marks(base, ids, parsed.content or "")
    if calls:
        content = _content_around(base, ids[:end], calls, content, parsed.reasoning_content or "")
    elif parsed.reasoning_complete is not False:
        content += _overlooked(base, ids[:end], content, parsed.reasoning_content or "")
    return {
        "content": whole(content) or None,
        "reasoning": whole(parsed.reasoning_content or "") or None,
        "tool_calls": [made for _, made in calls if made],
    }


def _parse(base: RenderedBase, ids: list[int], tools: list[Any] | None) -> ParsedResponse:
    return base.renderer.parse_response(ids, tools=tools, prompt_ids=base.generation_prompt)


def _as_call(base: RenderedBase, call: Any) -> Call | None:
    if call.status != ToolCallParseStatus.OK:
        return None
    if base.name in TAGS and TAGS[base.name].sub("", call.raw).strip():
        return None
    if base.name not in JSON_CALLS:
        return as_call(call.name, call.arguments)
    # Read again: the library knows one spelling of the arguments, and makes some where there are none.
    return call_of(call.raw)


def _content_around(
    base: RenderedBase,
    ids: list[int],
    calls: list[tuple[Any, Call | None]],
    content: str,
    reasoning: str,
) -> str:
    """The text around the calls; what looks like a call and is none stands in its place as text."""
    spans: dict[tuple[int, int], bool] = {}  # whether all that was tried there is a call
    text = content
    for call, made in calls:
        if call.token_span is None:
            if made is None:
                text += call.raw
        else:
            spans[call.token_span] = spans.get(call.token_span, True) and made is not None
    if not spans:
        return text
    ordered = sorted(spans.items())
    if base.name in WHOLE_CONTENT:
        return _between_pieces(base, ids, ordered, text)
    first = ordered[0][0][0]
    before = base.tokenizer.decode(ids[:first], skip_special_tokens=True)
    # Parsers cut the white space before a call, which belongs to the text where the call is none.
    out = text.rstrip() + (
        _overlooked(base, ids[:first], content, reasoning) or before[len(before.rstrip()) :]
    )
    at = first
    for (start, stop), is_call in ordered:
        out += _plain(base, ids[at:start])
        if not is_call:
            out += base.tokenizer.decode(ids[start:stop], skip_special_tokens=True)
        at = max(at, stop)
    return (out + _plain(base, ids[at:])).strip()


def _between_pieces(
    base: RenderedBase, ids: list[int], ordered: list[tuple[tuple[int, int], bool]], content: str
) -> str:
    out, known = "", ""
    for (start, stop), is_call in ordered:
        before = _without_marks(base, ids, _parse(base, ids[:start], None).content or "").strip()
        out += before[_common(known, before) :]
        known = before
        if not is_call:
            out += base.tokenizer.decode(ids[start:stop], skip_special_tokens=True)
    content = content.strip()
    return out + content[_common(known, content) :]


def _overlooked(base: RenderedBase, ids: list[int], content: str, reasoning: str) -> str:
    """Text that stands in a section of calls and belongs to none: its parser leaves it out."""
    if base.call_marks_are_text or base.name in WHOLE_CONTENT or base.name == "llama-3":
        return ""
    text, thought = _plain(base, ids), reasoning.strip()
    if thought not in text:
        return ""
    at = text.find(thought) + len(thought)
    found = text.find(content.strip(), at)
    if found < 0:
        return ""
    rest = text[found + len(content.strip()) :]
    return rest if re.sub(r"</?think>", "", rest).strip() else ""


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _plain(base: RenderedBase, ids: list[int]) -> str:
    """Text between calls. The marks of a section of calls are none, whether a tokenizer hides them or not."""
    if not base.call_marks_are_text:
        ids = [i for i in ids if i not in base.added_text]
    return base.tokenizer.decode(ids, skip_special_tokens=True) if ids else ""


def _without_marks(base: RenderedBase, ids: list[int], text: str) -> str:
    for token in set(ids) & base.special_text.keys():
        text = text.replace(base.special_text[token], "")
    return text


def _up_to(base: RenderedBase, ids: list[int], visible: str) -> list[int]:
    """The ids of the visible text: the sampled ones as far as they go, and the last, cut token spelled anew."""
    known, text = 0, ""
    low, high = 0, len(ids)
    while low <= high:  # the text of a prefix only grows
        middle = (low + high) // 2
        said = base.tokenizer.decode(ids[:middle], skip_special_tokens=True) if middle else ""
        if visible.startswith(said):
            known, text, low = middle, said, middle + 1
        else:
            high = middle - 1
    rest = visible[len(text) :]
    if not rest:
        return ids[:known]
    encode = base.plain.encode if base.plain else base.tokenizer.encode
    return ids[:known] + list(encode(rest))
