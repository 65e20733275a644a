"""Text as it streams: nothing that is shown is ever taken back."""

from __future__ import annotations

import pytest
from conftest import tiny_tokenizer

from hone_worker.engine.text import TextStream

TOKENIZER = tiny_tokenizer()


def stream(text: bytes, stops: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    """Byte by byte, as the tiny tokenizer has one token a byte."""
    ids = [TOKENIZER.convert_tokens_to_ids(_symbol(b)) for b in text]
    state = TextStream(TOKENIZER, stops)
    pieces = []
    for token in ids:
        state.push(token)
        if state.stopped_by is not None:
            break
        pieces.append(state.take(final=False))
    state.finish()
    pieces.append(state.take(final=True))
    return pieces, state


def _symbol(byte: int) -> str:
    """GPT-2's byte alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [b for b in range(256) if b not in printable].index(byte))


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語 and 🎉🎉!", "é" * 30])
def test_complete_characters_only(text: str) -> None:
    pieces, _ = stream(text.encode())
    assert "".join(pieces) == text
    assert "�" not in "".join(pieces)


def test_broken_utf8_equals_the_whole_decoded_at_once() -> None:
    raw = b"ab\xffcd\xe3\x81" + "日".encode() + b"\x80\x80x\xf0\x9f"
    pieces, _ = stream(raw)
    ids = [TOKENIZER.convert_tokens_to_ids(_symbol(b)) for b in raw]
    assert "".join(pieces) == TOKENIZER.decode(ids)


def test_a_stop_string_over_several_tokens_cuts_the_text() -> None:
    pieces, state = stream(b"one two STOP three", ("STOP",))
    assert "".join(pieces) == "one two "
    assert state.stopped_by == "STOP"


def test_a_possible_stop_string_waits_and_is_released() -> None:
    pieces, state = stream(b"a<|x", ("<|im_end|>",))
    assert pieces[:4] == ["a", "", "", "<|x"]
    assert state.stopped_by is None
    pieces, _ = stream(b"a<|im", ("<|im_end|>",))
    assert "".join(pieces) == "a<|im"


def test_the_earliest_stop_string_wins() -> None:
    _, state = stream(b"xx ab", ("ab", "x"))
    assert state.stopped_by == "x"


def test_special_tokens_are_no_text() -> None:
    state = TextStream(TOKENIZER)
    for token in [TOKENIZER.convert_tokens_to_ids("a"), TOKENIZER.eos_token_id]:
        state.push(token)
    state.finish()
    assert state.take(final=True) == "a"
