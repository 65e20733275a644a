"""Grammars: which tokens may come next in an answer that must keep to a schema, or has to call. llguidance knows them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from hone_worker.base.model import Base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.schema.json_schema import ANY_OBJECT, panics_as_errors, source_of, unsupported
from hone_worker.schema.schema_process import SchemaChecks

#: A token by its id, in the library's language.
MARKS = re.compile(r"<\[(\d+)\]>")
#: What callers wrote, in which the same characters are only text.
QUOTED = re.compile(r'%json .*|"(?:[^"\\]|\\.)*"')


class Grammar:
    """A choice's place in its grammar. Lives on the compute thread once the choice is queued."""

    def __init__(
        self,
        matcher: LLMatcher,
        grammars: Grammars,
        ends: frozenset[int],
        marks: frozenset[int] = frozenset(),
    ) -> None:
        self._matcher = matcher
        self._grammars = grammars
        self._ends = ends
        self._marks = marks
        self._mark_ids = np.array(sorted(marks), dtype=np.int64)
        self._end_ids = np.array(sorted(ends), dtype=np.int64)

    def copy(self) -> Grammar:
        return Grammar(self._matcher.deep_copy(), self._grammars, self._ends, self._marks)

    def accept(self, token: int) -> None:
        """Takes a token. If the grammar does not allow it, the next mask raises an error."""
        if token not in self._ends:
            self._matcher.consume_token(token)

    @property
    def over(self) -> bool:
        """Whether nothing can follow, while there is no end token to say so."""
        return not self._ends and self._matcher.is_stopped()

    def allowed(self) -> np.ndarray:
        """[vocab] bool: what may come next. At the grammar's end these are the choice's own end tokens."""
        grammars, matcher = self._grammars, self._matcher
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            raise failed("The answer's grammar became too complex. Use a simpler schema.")
        allowed = np.unpackbits(bits, bitorder="little")[: grammars.vocab_size].astype(bool)
        # Not allowed as text: a renderer would take them for marks of another part of the answer.
        # The marks that the grammar itself names are allowed where it names them, and nowhere as text.
        named = allowed[self._mark_ids]
        allowed[grammars.added_ids] = False
        allowed[self._mark_ids] = named
        if matcher.is_accepting():
            allowed[self._end_ids] = True
        if not allowed.any():
            raise failed("This base has no token with which its answer could go on. Use a simpler schema.")
        return allowed


class Grammars:
    """Makes grammars for one base. Its tokenizer is read when the first request needs that."""

    def __init__(self, base: Base) -> None:
        self.vocab_size = base.vocab_size
        self.checks = SchemaChecks()
        self._tokenizer = base.tokenizer
        self.added_ids = self._ids(base.tokenizer.get_added_vocab().values())
        self._lock = threading.Lock()
        self._read: LLTokenizer | None = None

    def compile(self, schema: dict[str, Any] | None, ends: Iterable[int]) -> Grammar:
        """None for any object. Not for the event loop: a large schema takes a while."""
        return self._made(source_of(ANY_OBJECT if schema is None else schema), ends)

    def compile_source(self, source: str, ends: Iterable[int]) -> Grammar:
        """A grammar in the library's own language, as the renderer writes it of calls. Not for the event loop."""
        marks = {int(found) for found in MARKS.findall(QUOTED.sub("", source))}
        known = frozenset(mark for mark in marks if mark < self.vocab_size)
        return self._made(LLMatcher.grammar_from_lark(source), ends, known)

    def _made(self, source: str, ends: Iterable[int], marks: frozenset[int] = frozenset()) -> Grammar:
        tokenizer = self._ll_tokenizer()
        try:
            with panics_as_errors():
                matcher = LLMatcher(tokenizer, source, log_level=0)
        except ValueError as error:
            raise unsupported(str(error)) from error
        if problem := matcher.get_error():
            raise unsupported(problem)
        return Grammar(matcher, self, frozenset(i for i in ends if 0 <= i < self.vocab_size), marks)

    def _ll_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._read is None:
                size = max(self.vocab_size, len(self._tokenizer))
                try:
                    with panics_as_errors():
                        self._read = LLTokenizer(
                            _all_special(self._tokenizer),
                            n_vocab=size,
                            eos_token=self._tokenizer.eos_token_id,
                        )
                except Exception as error:
                    raise failed(
                        "This base's tokenizer is of a kind that no grammar can be made for. Ask without response_format and without a tool call that has to be."
                    ) from error
                # The end tokens that the library assumes. A request has its own.
                self.added_ids = self._ids([*self.added_ids, *self._read.eos_tokens])
            return self._read

    def _ids(self, ids: Iterable[int]) -> np.ndarray:
        return np.array(sorted({int(i) for i in ids if 0 <= i < self.vocab_size}), dtype=np.int64)


def _all_special(tokenizer: Any) -> str:
    """The tokenizer with all its added tokens as special ones, which no text of a grammar is spelled with."""
    read = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [{**token, "special": True} for token in read["added_tokens"]]
    return json.dumps({**read, "added_tokens": tokens, "truncation": None, "padding": None})


def failed(message: str) -> HoneWorkerError:
    return HoneWorkerError(message, code="unsupported_grammar", param="response_format")


def mask(
    logits: Tensor, rows: Sequence[int], grammars: Sequence[Grammar | None]
) -> dict[int, HoneWorkerError]:
    """Rules out, in place, what the grammars of these rows do not allow. Errors by row, whose logits stay."""
    errors: dict[int, HoneWorkerError] = {}
    places: list[int] = []
    forbidden: list[np.ndarray] = []
    for row, grammar in zip(rows, grammars, strict=True):
        assert grammar is not None
        try:
            with panics_as_errors():
                forbidden.append(~grammar.allowed())
            places.append(row)
        except HoneWorkerError as error:
            errors[row] = error
        except Exception as error:  # one answer's grammar must not end the others
            errors[row] = failed(f"The answer's grammar failed ({error}). Use a simpler schema.")
    if places:
        cut = torch.from_numpy(np.stack(forbidden)).to(logits.device)
        logits[places] = logits[places].masked_fill(cut, float("-inf"))
    return errors
