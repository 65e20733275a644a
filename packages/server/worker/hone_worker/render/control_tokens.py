"""Text is text: a message that spells a control token of the base does not become that token.

Renderers put a template's own tokens and an agent's texts into one string before they tokenise it. So every
control token that a text spells is broken by a mark first; the tokenizer that renderers see takes the marks out
again, and reads what they stand in without control tokens. Texts that spell none are tokenised as ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from tokenizers import Tokenizer

# Noncharacters, which Unicode keeps for use inside a program. One that an agent writes is followed by the other.
MARK, ESCAPE = "\ufdd0", "\ufdd1"
MARKS = re.compile(f"{MARK}({ESCAPE}?)")
# Marks that are tokens of their own in many bases, but are not "special" in all of them.
KNOWN = re.compile(r"</?(?:think|tools?|tool_calls?|tool_response|arg_key|arg_value|tool_sep)>")
# An assistant's own thought, as data sets and servers without a parser write it, is the template's to read.
THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


def control_texts(tokenizer: Any) -> set[str]:
    """Added tokens that mean something: special ones, and those that the chat template writes."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    return {
        text
        for token in tokenizer.added_tokens_decoder.values()
        if len(text := token.content) > 1
        and not text.isspace()
        and (token.special or KNOWN.fullmatch(text) or text in template)
    }


class PlainText:
    """The base's tokenizer without its control tokens."""

    def __init__(self, tokenizer: Any):
        self.controls = control_texts(tokenizer)
        self.pattern = re.compile(_any_of(self.controls) or r"(?!)")
        self._ids = {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.content in self.controls
        }
        read = json.loads(tokenizer.backend_tokenizer.to_str())
        read["added_tokens"] = [t for t in read["added_tokens"] if t["content"] not in self.controls]
        read["post_processor"] = None  # it may name tokens that were removed
        self._first = Tokenizer.from_str(json.dumps(read))
        self._later = Tokenizer.from_str(json.dumps(_without_first_space(read)))

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        ids = self._ids_of(text, first)
        if not self._ids.isdisjoint(ids):
            # The vocabulary itself has the control token's text as one piece.
            ids = [i for piece in text for i in self._ids_of(piece, False)]
        return ids

    def _ids_of(self, text: str, first: bool) -> list[int]:
        # `encode_batch` of one text: `encode` would keep the interpreter's lock, and long texts all others.
        encoded = (self._first if first else self._later).encode_batch_fast([text], add_special_tokens=False)
        return encoded[0].ids

    def mark(self, value: Any) -> Any:
        """The same value with every text in it marked, keys too."""
        if isinstance(value, str):
            text = value.replace(MARK, MARK + ESCAPE)
            while self.pattern.search(text):
                text = self.pattern.sub(lambda found: found[0][0] + MARK + found[0][1:], text)
            return text
        if isinstance(value, list):
            return [self.mark(one) for one in value]
        if isinstance(value, dict):
            return {self.mark(key): self.mark(one) for key, one in value.items()}
        return value

    def mark_message(self, message: dict[str, Any]) -> dict[str, Any]:
        marked = {key: one if key == "role" else self.mark(one) for key, one in message.items()}
        if message["role"] != "assistant":
            return marked
        content = message["content"]
        if thought := THOUGHT.match(content):
            inner = thought[0].partition("<think>")[2][: -len("</think>")]
            marked["content"] = f"<think>{self.mark(inner)}</think>{self.mark(content[thought.end() :])}"
        for call, given in zip(marked.get("tool_calls") or [], message.get("tool_calls") or [], strict=True):
            call["function"]["arguments"] = self._mark_json(given["function"]["arguments"])
        return marked

    def _mark_json(self, text: str) -> str:
        """Templates read arguments and write them anew, and then JSON's escapes spell what they stand for."""
        if "\\" in text:
            try:
                read = json.loads(text)
                spelled = json.dumps(read, ensure_ascii=False)
                if self.pattern.search(spelled):
                    return json.dumps(self.mark(read), ensure_ascii=False)
            except (ValueError, RecursionError):
                pass
        return self.mark(text)


def _any_of(texts: Collection[str]) -> str:
    """A pattern of the longest of these texts, as a tree: thousands of tokens that begin alike cost as little as one."""
    if not texts:
        return ""
    by_first: dict[str, list[str]] = {}
    for text in texts:
        if text:
            by_first.setdefault(text[0], []).append(text[1:])
    branches = [re.escape(first) + _any_of(rest) for first, rest in sorted(by_first.items())]
    if not branches:
        return ""
    tree = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    return f"(?:{tree})?" if "" in texts else tree


def plain_text(tokenizer: Any) -> PlainText | None:
    """None if the tokenizer is not of the `tokenizers` library, because only those can be copied."""
    return PlainText(tokenizer) if getattr(tokenizer, "backend_tokenizer", None) else None


def unmarked(text: str) -> str:
    return MARKS.sub(lambda found: MARK if found[1] else "", text)


class MarkedTokenizer:
    """What a renderer takes for the base's tokenizer. Marked texts lose their marks here."""

    def __init__(self, tokenizer: Any, plain: PlainText | None):
        self._tokenizer = tokenizer
        self.plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: Any, *args: Any, **options: Any) -> Any:
        if options.get("return_offsets_mapping"):
            # Renderers then go without; nobody here asks which token came of which character.
            raise NotImplementedError("offsets of marked text")
        if self.plain is not None and isinstance(text, str) and MARK in text:
            ids = self.encode(text, add_special_tokens=options.get("add_special_tokens", True))
            return {"input_ids": ids, "attention_mask": [1] * len(ids)}
        return self._tokenizer(text, *args, **options)

    def encode(self, text: str, *args: Any, **options: Any) -> list[int]:
        if self.plain is None or MARK not in text:
            return self._tokenizer.encode(text, *args, **options)
        ids: list[int] = []
        for start, piece, is_marked in self._runs(text):
            if is_marked:
                ids += self.plain.encode(unmarked(piece), first=start == 0)
            else:
                special = options.get("add_special_tokens", True) and start == 0
                ids += self._tokenizer.encode(piece, add_special_tokens=special)
        return ids

    def _runs(self, text: str) -> Iterator[tuple[int, str, bool]]:
        """Runs of template and plain text, and between them each text that has marks, up to the next token."""
        at = 0
        for start, end in self._texts(text):
            if MARK not in text[start:end]:
                continue
            if at < start:
                yield at, text[at:start], False
            yield start, text[start:end], True
            at = end
        if at < len(text):
            yield at, text[at:], False

    def _texts(self, text: str) -> Iterator[tuple[int, int]]:
        at = 0
        assert self.plain is not None
        for found in self.plain.pattern.finditer(text):
            yield at, found.start()
            at = found.end()
        yield at, len(text)

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        if not options.get("tokenize", True):
            return self._tokenizer.apply_chat_template(conversation, **options)
        text = self._tokenizer.apply_chat_template(conversation, **{**options, "tokenize": False})
        return self.encode(text, add_special_tokens=False)


def _without_first_space(read: dict[str, Any]) -> dict[str, Any]:
    """SentencePiece's space before a text, which is not before one that goes on behind a control token."""

    def later(stage: Any) -> Any:
        if not isinstance(stage, dict):
            return stage
        changed = {**stage}
        if stage.get("prepend_scheme") == "first":
            changed["prepend_scheme"] = "never"
        if isinstance(stage.get("pretokenizers"), list):
            changed["pretokenizers"] = [later(one) for one in stage["pretokenizers"]]
        return changed

    return {**read, "pre_tokenizer": later(read.get("pre_tokenizer"))}
