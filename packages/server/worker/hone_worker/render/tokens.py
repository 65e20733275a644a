"""Token id → the text and bytes that it stands for, as OpenAI's logprobs content shows them."""

from __future__ import annotations

import json
import re
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\u2581"  # SentencePiece's visible space


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable characters, each for one byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


class TokenBytes:
    """A token's bytes are known only from the tokenizer's decoder: byte-level, or SentencePiece with byte fallback."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._added = {int(i): t.content for i, t in tokenizer.added_tokens_decoder.items()}
        stages = _decoder_stages(tokenizer)
        self._alphabet = byte_level_alphabet() if "ByteLevel" in stages else None
        self._known: dict[int, dict[str, Any]] = {}

    def content(self, token_id: int) -> dict[str, Any]:
        known = self._known.get(token_id)
        if known is None:
            data = self._bytes(token_id)
            known = {"token": data.decode("utf-8", errors="replace"), "bytes": list(data)}
            self._known[token_id] = known
        return known

    def _bytes(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return b""  # a row of the embedding that no token uses
        if self._alphabet is not None:
            return b"".join(bytes([self._alphabet[c]]) if c in self._alphabet else c.encode() for c in piece)
        as_byte = BYTE_TOKEN.fullmatch(piece)
        if as_byte:
            return bytes([int(as_byte.group(1), 16)])
        return piece.replace(SPACE, " ").encode()


def longest_token(tokenizer: Any) -> int | None:
    """How many characters of a text one token can stand for at most: white space not counted, which templates
    and tokens may swallow, and one that is not ASCII for a quarter, because normalisers join some of them.

    None where no such bound is certain: a tokenizer that drops characters, or has one token for all unknown ones.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    read = json.loads(backend.to_str())
    model, text = read["model"], json.dumps(read.get("pre_tokenizer"))
    bytewise = "ByteLevel" in text or model.get("byte_fallback") is True
    if not bytewise or '"Removed"' in text or not _keeps_length(read.get("normalizer")):
        return None
    added = (len(t.content.encode()) for t in tokenizer.added_tokens_decoder.values())
    pieces = (len(piece.encode()) for piece in tokenizer.get_vocab())
    return max(max(pieces, default=0), max(added, default=0)) or None


def _keeps_length(normalizer: dict[str, Any] | None) -> bool:
    if normalizer is None:
        return True
    kind = normalizer["type"]
    if kind == "Sequence":
        return all(_keeps_length(one) for one in normalizer["normalizers"])
    if kind == "Replace":
        pattern = normalizer["pattern"].get("String")
        return pattern is not None and (pattern.isspace() or len(normalizer["content"]) >= len(pattern))
    return kind in ("NFC", "NFD", "NFKC", "NFKD", "Prepend")


def _decoder_stages(tokenizer: Any) -> set[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str()).get("decoder") if backend is not None else None
    if decoder is None:
        return set()
    return {decoder["type"], *(stage["type"] for stage in decoder.get("decoders", []))}
