"""Text of one choice as its tokens come: UTF-8 that is not complete yet, and stop strings, are held back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "�"


class TextStream:
    """Feeds on token ids. `visible` is final text; what could still become a stop string waits."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._longest = max((len(s) for s in stops), default=0)
        self._ids: list[int] = []
        # A token's text can depend on the one before it, so a few ids before the new ones are decoded too.
        self._prefix = 0
        self._read = 0
        self._prefix_text = ""
        self._text = ""
        self._sent = 0
        self.stopped_by: str | None = None

    def push(self, token: int) -> None:
        """Adds a token. Sets `stopped_by` when a stop string is complete."""
        self._ids.append(token)
        window = self._decode(self._ids[self._prefix :])
        if len(window) <= len(self._prefix_text) or window.endswith(REPLACEMENT):
            return
        self._append(window[len(self._prefix_text) :])
        # Both ends of the next prefix are where the text was complete.
        self._prefix, self._read = self._read, len(self._ids)
        self._prefix_text = self._decode(self._ids[self._prefix : self._read])

    def hold(self, token: int) -> None:
        """Adds a token whose text nobody needs before the end."""
        self._ids.append(token)

    def finish(self) -> None:
        """No token follows: incomplete UTF-8 becomes the replacement character."""
        if self.stopped_by is None:
            window = self._decode(self._ids[self._prefix :])
            if len(window) > len(self._prefix_text):
                self._append(window[len(self._prefix_text) :])

    def take(self, *, final: bool) -> str:
        """The text that became certain since the last call."""
        end = len(self._text) if final or self.stopped_by is not None else len(self._text) - self._held()
        piece = self._text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _append(self, piece: str) -> None:
        if self.stopped_by is not None:
            return
        start = max(0, len(self._text) - self._longest + 1)
        self._text += piece
        found = [(at, stop) for stop in self._stops if (at := self._text.find(stop, start)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self._text = self._text[:at]

    def _held(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        for length in range(min(self._longest - 1, len(self._text)), 0, -1):
            tail = self._text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
