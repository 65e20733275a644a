"""A chat template that goes on where it ended: then a turn can extend what was sampled, token for token.

All that is known of a template is what it writes. It is tried once on a few conversations. If in all of them the
same text follows an answer, and new messages are written alike whatever came before, then the next prompt is what
came before, plus that text. A template that writes an answer differently once it is history is rendered in full.
"""

from __future__ import annotations

import logging
from typing import Any

from renderers import RenderedTokens
from renderers.default import _decode_tool_call_arguments

from hone_worker.render.family import CALLED, QUESTION, RESULT, TOOL

log = logging.getLogger("hone_worker.renderer")
ANSWER = {"role": "assistant", "content": "At a1."}
SYSTEM = {"role": "system", "content": "Be brief."}
BEFORE: list[list[Any]] = [
    [QUESTION],
    [SYSTEM, QUESTION],
    [QUESTION, ANSWER, {"role": "user", "content": "Sure?"}],
]
ANSWERS = [ANSWER, {"role": "assistant", "content": "No, {b2}\n\nor <c3>"}]
NEW: list[list[Any]] = [
    [{"role": "user", "content": "And now?"}],
    [{"role": "user", "content": "Look"}, {"role": "user", "content": "again"}],
]


class _Refused(Exception):
    """The template refused a conversation, so nothing is known of it."""


class BridgingTemplate:
    """The default renderer, for a template that only adds to a conversation."""

    is_prefix_stable = True

    def __init__(self, inner: Any, tokenizer: Any, stops: list[int], tail: str):
        self.inner = inner
        self.config = inner.config
        self._tokenizer = tokenizer
        self._stops = stops
        self._tail = tail
        self._start = text_of(inner, tokenizer, [QUESTION, ANSWER])

    def render_ids(self, messages: list[Any], **options: Any) -> list[int]:
        return self.inner.render_ids(messages, **options)

    def parse_response(self, ids: list[int], **options: Any) -> Any:
        return self.inner.parse_response(ids, **options)

    def get_stop_token_ids(self) -> list[int]:
        return self.inner.get_stop_token_ids()

    def bridge_to_next_turn(
        self, prompt_ids: list[int], completion_ids: list[int], messages: list[Any], *, tools: Any = None
    ) -> RenderedTokens | None:
        whole = text_of(self.inner, self._tokenizer, [QUESTION, ANSWER, *messages], opens=True)
        if not whole.startswith(self._start):
            return None
        added = self._tail + whole[len(self._start) :]
        close, *rest = self._tokenizer.encode(added, add_special_tokens=False)
        closed = bool(completion_ids) and completion_ids[-1] in self._stops
        # Cut by length or by a stop string: the close is prompt, not sampled.
        return RenderedTokens(token_ids=[*prompt_ids, *completion_ids, *([] if closed else [close]), *rest])


def bridging(renderer: Any, tokenizer: Any, stops: list[int]) -> Any:
    """The renderer with a bridge, or unchanged if its template does not only add to a conversation."""
    try:
        tail = _tail(renderer, tokenizer)
        if tail is None:
            return renderer
        ids = tokenizer.encode(tail, add_special_tokens=False)
        # What follows an answer begins with a token that ends one, and nothing before it merges with it.
        if not ids or ids[0] not in stops or not _goes_on(renderer, tokenizer):
            return renderer
        return BridgingTemplate(renderer, tokenizer, stops, tail)
    except Exception as error:
        log.debug("the template is rendered in full: %s", error)
        return renderer


def text_of(
    renderer: Any, tokenizer: Any, messages: list[Any], tools: Any = None, *, opens: bool = False
) -> str:
    options = {**(renderer.config.model_extra or {}), "add_generation_prompt": opens, "tokenize": False}
    try:
        return tokenizer.apply_chat_template(_decode_tool_call_arguments(messages), tools=tools, **options)
    except Exception as error:
        raise _Refused(str(error)) from error


def _tail(renderer: Any, tokenizer: Any) -> str | None:
    """The text that follows an answer, if it is the same in all conversations."""
    tails = set()
    for before in BEFORE:
        for answer in ANSWERS:
            try:
                begun = text_of(renderer, tokenizer, before, opens=True) + answer["content"]
                said = text_of(renderer, tokenizer, [*before, answer])
            except _Refused:
                if before is BEFORE[0]:
                    raise
                continue
            if not said.startswith(begun):
                return None
            tails.add(said[len(begun) :])
    return tails.pop() if len(tails) == 1 else None


def _goes_on(renderer: Any, tokenizer: Any) -> bool:
    """Whether new messages are written alike behind every conversation, and change nothing of it."""
    cases: list[tuple[list[Any], Any, list[Any]]] = [
        (before, answer, new) for before in BEFORE for answer in ANSWERS for new in NEW
    ]
    cases += [(BEFORE[0], CALLED, [RESULT]), (BEFORE[2], CALLED, [RESULT, RESULT])]
    start = text_of(renderer, tokenizer, [QUESTION, ANSWER])
    for before, answer, new in cases:
        for tools in (None, [TOOL]):
            try:
                said = text_of(renderer, tokenizer, [*before, answer], tools)
                expected = text_of(renderer, tokenizer, [QUESTION, ANSWER, *new], opens=True)
                whole = text_of(renderer, tokenizer, [*before, answer, *new], tools, opens=True)
            except _Refused:
                continue  # what it refuses here it also refuses after a bridge, and in a full rendering
            if not expected.startswith(start) or whole != said + expected[len(start) :]:
                return False
    return True
