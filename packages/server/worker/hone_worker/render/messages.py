"""OpenAI's messages and tools as they come in: checked once here, so that a renderer never meets a surprise."""

from __future__ import annotations

import json
import re
from typing import Any

from hone_worker.process.errors import HoneWorkerError

HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
ROLES = ("system", "developer", "user", "assistant", "tool")


def bad(where: str, problem: str) -> HoneWorkerError:
    return HoneWorkerError(f"{where}: {problem}", code="invalid_messages", status=400, param=where)


def check_messages(messages: list[Any]) -> list[dict[str, Any]]:
    if not messages:
        raise bad("messages", "at least one message is needed")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise bad(where, "a message must be an object with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise bad(f"{where}.role", f"must be one of {', '.join(ROLES)}, not {role!r}")
    out = dict(message)  # keys that we do not know are kept: a chat template may read them
    out["role"] = "system" if role == "developer" else role
    out["content"] = _content(message, f"{where}.content", optional=role == "assistant")
    if role == "assistant":
        refusal = out.pop("refusal", None)
        if refusal is not None and not isinstance(refusal, str):
            raise bad(f"{where}.refusal", "must be a string")
        out["content"] += refusal or ""  # what the assistant said, whatever field an SDK keeps it in
        reasoning = message.get("reasoning_content", message.get("reasoning"))
        if reasoning is not None and not isinstance(reasoning, str):
            raise bad(f"{where}.reasoning_content", "must be a string")
        out.pop("reasoning", None)
        out.pop("reasoning_content", None)
        if reasoning:
            out["reasoning_content"] = reasoning
        out.pop("tool_calls", None)
        calls = message.get("tool_calls")
        if calls is not None and not isinstance(calls, list):
            raise bad(f"{where}.tool_calls", "must be an array")
        if calls:
            out["tool_calls"] = [_tool_call(c, f"{where}.tool_calls[{i}]") for i, c in enumerate(calls)]
    elif message.get("tool_calls"):
        raise bad(
            f"{where}.tool_calls", f"only an assistant message has tool calls, this one's role is {role!r}"
        )
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise bad(f"{where}.tool_call_id", "a tool message must name the call that it answers")
    return out


def _content(message: dict[str, Any], where: str, *, optional: bool) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if optional:
            return ""
        raise bad(where, "must be a string or an array of text parts")
    if not isinstance(content, list):
        raise bad(where, "must be a string or an array of text parts")
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            raise bad(f"{where}[{i}]", f"only text parts can be rendered for this base, not {kind or part!r}")
        if not isinstance(part.get(kind), str):
            raise bad(f"{where}[{i}].{kind}", "must be a string")
        texts.append(part[kind])
    return "".join(texts)


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise bad(where, "a tool call must be an object")
    if call.get("type", "function") != "function":
        raise bad(f"{where}.type", f"only function calls can be rendered, not {call['type']!r}")
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise bad(f"{where}.function.name", "must be a non-empty string")
    if not isinstance(function.get("arguments"), str):
        raise bad(f"{where}.function.arguments", "must be a string that holds JSON")
    return {**call, "type": "function", "function": {**function, "arguments": _whole(function["arguments"])}}


def _whole(arguments: str) -> str:
    """A template may read arguments and write them again: half an emoji that JSON escapes is no text then."""
    if not HALF_ESCAPED.search(arguments):
        return arguments
    try:
        return json.dumps(_replaced(json.loads(arguments)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments  # not JSON: it stays as it is


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        # A pair that was escaped by halves is a whole character here; what is left of them becomes U+FFFD.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return value


def check_tools(tools: list[Any] | None) -> list[dict[str, Any]] | None:
    if not tools:
        return None
    for i, tool in enumerate(tools):
        where = f"tools[{i}]"
        if not isinstance(tool, dict):
            raise bad(where, "a tool must be an object")
        if tool.get("type") != "function":
            raise bad(f"{where}.type", f"only function tools can be rendered, not {tool.get('type')!r}")
        function = tool.get("function")
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            raise bad(f"{where}.function.name", "must be a non-empty string")
    return tools
