"""The lean template: one token opens a message, only an answer is closed. See scripts/make-base/chat_template.jinja.

    <|tools|>{json a line}<|system|>text<|user|>text<|assistant|>answer<|im_end|><|tool|>text<|assistant|>

An answer may begin with <think>…</think> and end with any number of <tool_call>{"name", "arguments"}</tool_call>.
A bridge appends to what was sampled and never reads it again, so it holds whatever the model sampled.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from renderers import BaseRendererConfig, ParsedResponse, ParsedToolCall, RenderedTokens, ToolCallParseStatus
from renderers.base import extract_message_tool_names
from tokenizers import Tokenizer

from hone_worker.render.control_tokens import PlainText
from hone_worker.render.tool_calls import strict_json

CLOSE = "<|im_end|>"
OPENERS = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>", "tool": "<|tool|>"}


class LeanRendererConfig(BaseRendererConfig):
    name: Literal["lean"] = "lean"
    _template_fields: ClassVar[frozenset[str]] = frozenset()


class LeanRenderer:
    config_class = LeanRendererConfig
    is_prefix_stable = True

    def __init__(self, tokenizer: Any, config: LeanRendererConfig | None = None):
        self.config = config or LeanRendererConfig()
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        # A user who writes "<|assistant|>" or "<tool_call>" writes those characters.
        self._text = PlainText(tokenizer)
        self._open = {role: self._id(token) for role, token in OPENERS.items()}
        self._tools = self._id("<|tools|>")
        self._close = self._id(CLOSE)
        self._stops = [self._close, self._id("<|endoftext|>")]
        self._think, self._think_end = self._id("<think>"), self._id("</think>")
        self._call, self._call_end = self._id("<tool_call>"), self._id("</tool_call>")

    def _id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(
                f"The lean renderer needs the token {token!r}, which this tokenizer does not have"
            )
        return token_id

    def _encode(self, text: str) -> list[int]:
        return self._text.encode(text) if text else []

    def _decode(self, ids: list[int]) -> str:
        # Openers that were sampled in mid-answer are no text; <think> and <tool_call> are not "special" and stay.
        return self._tokenizer.decode(ids, skip_special_tokens=True) if ids else ""

    def _message(self, message: dict[str, Any]) -> tuple[list[int], int]:
        """The message's ids, and how many of them at the start are scaffold (its opener)."""
        role = message.get("role")
        if role not in self._open:
            raise ValueError(f"The lean renderer has no role {role!r}")
        ids = [self._open[role]]
        if role != "assistant":
            return ids + self._encode(_text(message.get("content"))), 1
        if message.get("reasoning_content"):
            ids += [self._think, *self._encode(message["reasoning_content"]), self._think_end]
        ids += self._encode(_text(message.get("content")))
        for call in message.get("tool_calls") or []:
            function = call["function"]
            arguments = function["arguments"]
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            name = json.dumps(function["name"], ensure_ascii=False)
            ids += [
                self._call,
                *self._encode(f'{{"name": {name}, "arguments": {arguments}}}'),
                self._call_end,
            ]
        return [*ids, self._close], 1

    def render(
        self,
        messages: list[Any],
        *,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> RenderedTokens:
        ids: list[int] = []
        if tools:
            ids += [self._tools, *self._encode("\n".join(json.dumps(t, ensure_ascii=False) for t in tools))]
        indices, sampled, content = [-1] * len(ids), [False] * len(ids), [False] * len(ids)
        for i, message in enumerate(messages):
            piece, scaffold = self._message(message)
            body = len(piece) - scaffold
            ids += piece
            indices += [i] * len(piece)
            sampled += [False] * scaffold + [message["role"] == "assistant"] * body
            content += [False] * scaffold + [True] * body
        if add_generation_prompt:
            ids.append(self._open["assistant"])
            indices.append(-1)
            sampled.append(False)
            content.append(False)
        return RenderedTokens(
            token_ids=ids,
            message_indices=indices,
            sampled_mask=sampled,
            is_content=content,
            message_roles=[m.get("role") or "" for m in messages],
            message_tool_names=extract_message_tool_names(messages),
        )

    def render_ids(
        self,
        messages: list[Any],
        *,
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[int]:
        return self.render(messages, tools=tools, add_generation_prompt=add_generation_prompt).token_ids

    def get_stop_token_ids(self) -> list[int]:
        return list(self._stops)

    def bridge_to_next_turn(
        self,
        previous_prompt_ids: list[int],
        previous_completion_ids: list[int],
        new_messages: list[Any],
        *,
        tools: list[Any] | None = None,
    ) -> RenderedTokens | None:
        if not previous_prompt_ids or not new_messages:
            return None
        if any(message.get("role") == "assistant" for message in new_messages):
            return None  # an answer that was not sampled here: its ids are not known
        before = [*previous_prompt_ids, *previous_completion_ids]
        if not previous_completion_ids or previous_completion_ids[-1] not in self._stops:
            before.append(self._close)  # cut by length or by a stop string: the close is prompt, not sampled
        added = self.render(new_messages, add_generation_prompt=True)
        return RenderedTokens(
            token_ids=before + added.token_ids,
            message_indices=[-1] * len(before) + added.message_indices,
            sampled_mask=[False] * (len(before) + len(added.token_ids)),
            is_content=[False] * len(before) + added.is_content,
            message_roles=added.message_roles,
            message_tool_names=added.message_tool_names,
        )

    def parse_response(
        self,
        token_ids: list[int],
        *,
        tools: list[Any] | None = None,
        prompt_ids: list[int] | None = None,
    ) -> ParsedResponse:
        ids = list(token_ids)
        end = next((i for i, token in enumerate(ids) if token in self._stops), len(ids))
        ids = ids[:end]
        reasoning: str | None = None
        start = 0
        if ids and ids[0] == self._think:
            close = _find(ids, self._think_end, 1)
            if close is None:
                return ParsedResponse("", self._decode(ids[1:]), [], reasoning_complete=False)
            reasoning, start = self._decode(ids[1:close]), close + 1
        content: list[int] = []
        calls: list[ParsedToolCall] = []
        i = start
        while i < len(ids):
            if ids[i] != self._call:
                if not calls:  # what stands behind a call is put in its place by who reads the answer
                    content.append(ids[i])
                i += 1
                continue
            close = _find(ids, self._call_end, i + 1)
            stop = len(ids) if close is None else close
            span = (i, stop if close is None else stop + 1)
            calls.append(_tool_call(self._decode(ids[i + 1 : stop]), span, closed=close is not None))
            i = span[1]
        return ParsedResponse(self._decode(content), reasoning, calls)


def _find(ids: list[int], token: int, start: int) -> int | None:
    return next((i for i in range(start, len(ids)) if ids[i] == token), None)


def _tool_call(raw: str, span: tuple[int, int], *, closed: bool) -> ParsedToolCall:
    def failed(status: ToolCallParseStatus) -> ParsedToolCall:
        return ParsedToolCall(raw=raw, token_span=span, status=status)

    if not closed:
        return failed(ToolCallParseStatus.UNCLOSED_BLOCK)
    try:
        call = strict_json(raw)
    except ValueError:
        return failed(ToolCallParseStatus.INVALID_JSON)
    name = call.get("name") if isinstance(call, dict) else None
    if not isinstance(name, str) or not name:
        return failed(ToolCallParseStatus.MISSING_NAME)
    arguments = call.get("arguments", call.get("parameters"))
    if not isinstance(arguments, dict):
        return failed(ToolCallParseStatus.MALFORMED_STRUCTURE)
    return ParsedToolCall(
        raw=raw, name=name, arguments=arguments, token_span=span, status=ToolCallParseStatus.OK
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""
