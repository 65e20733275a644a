"""Tools for a base whose chat template has none: Hermes' convention, as Qwen and others were taught it.

A block of the system message lists the tools as JSON. A call is `<tool_call>{"name": …, "arguments": {…}}</tool_call>`
behind the answer's text, a result is `<tool_response>…</tool_response>` in a user message. All of it is text, which any
template carries and which is read back here.
"""

from __future__ import annotations

import json
import re
from typing import Any

from renderers import ParsedResponse, ParsedToolCall, RenderedTokens, ToolCallParseStatus

from hone_worker.render.tool_calls import call_of

HEADER = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
FOOTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
BLOCK = re.compile(r"\s*<tool_call>((?:(?!<tool_call>).)*?)</tool_call>", re.DOTALL)


class ToolConvention:
    """A renderer around another one, which then sees messages of system, user and assistant only.

    With `writes` false only the reading is done here: the template writes tools, calls and results itself.
    """

    is_prefix_stable = False

    def __init__(self, inner: Any, *, writes: bool, has_system: bool):
        self.inner = inner
        self.config = inner.config
        self._writes = writes
        self._has_system = has_system

    def render_ids(
        self, messages: list[Any], *, tools: list[Any] | None = None, add_generation_prompt: bool = False
    ) -> list[int]:
        if not self._writes:
            return list(
                self.inner.render_ids(messages, tools=tools, add_generation_prompt=add_generation_prompt)
            )
        told = _plain_messages(messages)
        if tools:
            told = self._with_tools(told, tools)
        return list(self.inner.render_ids(told, tools=None, add_generation_prompt=add_generation_prompt))

    def _with_tools(self, messages: list[Any], tools: list[Any]) -> list[Any]:
        lines = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
        block = HEADER + lines + FOOTER
        role = "system" if self._has_system else "user"
        at = next((i for i, message in enumerate(messages) if message["role"] == role), None)
        if at is None or (self._has_system and at > 0):
            return [{"role": role, "content": block}, *messages]
        said = messages[at]["content"]
        text = f"{said}\n\n{block}" if self._has_system else f"{block}\n\n{said}"
        return [*messages[:at], {**messages[at], "content": text.strip()}, *messages[at + 1 :]]

    def bridge_to_next_turn(
        self, prompt_ids: list[int], completion_ids: list[int], messages: list[Any], *, tools: Any = None
    ) -> RenderedTokens | None:
        new = _plain_messages(messages) if self._writes else messages
        return self.inner.bridge_to_next_turn(prompt_ids, completion_ids, new)

    def get_stop_token_ids(self) -> list[int]:
        return self.inner.get_stop_token_ids()

    def parse_response(
        self, ids: list[int], *, tools: list[Any] | None = None, prompt_ids: list[int] | None = None
    ) -> ParsedResponse:
        parsed = self.inner.parse_response(ids, tools=None, prompt_ids=prompt_ids)
        if not tools:
            return parsed
        calls: list[ParsedToolCall] = []

        def taken(found: re.Match[str]) -> str:
            call = call_of(found[1])
            if call is None:
                return found[0]
            arguments = json.loads(call["arguments"])
            calls.append(
                ParsedToolCall(
                    raw=found[1], name=call["name"], arguments=arguments, status=ToolCallParseStatus.OK
                )
            )
            return ""

        content = BLOCK.sub(taken, parsed.content or "")
        parsed.tool_calls = [*parsed.tool_calls, *calls]
        parsed.content = content.strip() if calls else content
        return parsed


def _plain_messages(messages: list[Any]) -> list[Any]:
    out: list[Any] = []
    results: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(f"<tool_response>\n{message['content']}\n</tool_response>")
            continue
        if results:
            out.append({"role": "user", "content": "\n".join(results)})
            results = []
        out.append(_with_calls(message) if message.get("tool_calls") else message)
    if results:
        out.append({"role": "user", "content": "\n".join(results)})
    return out


def _with_calls(message: dict[str, Any]) -> dict[str, Any]:
    parts = [message["content"]] if message["content"] else []
    for call in message["tool_calls"]:
        name = json.dumps(call["function"]["name"], ensure_ascii=False)
        # Arguments that are not JSON stay as the agent wrote them: a call that cannot be read back is text.
        arguments = call["function"]["arguments"].strip() or "{}"
        parts.append(f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>')
    return {
        **{key: value for key, value in message.items() if key != "tool_calls"},
        "content": "\n".join(parts),
    }
