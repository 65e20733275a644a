"""Tokens as text and bytes, for the two ways in which tokenizers spell bytes."""

from pathlib import Path

import pytest
from conftest import save_tiny_base, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hone_worker.base.model import load_base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import load
from hone_worker.render.tokens import TokenBytes
from hone_worker.renderer import Service

BASE = str(Path(__file__).parents[4] / "models" / "hone-2048-1m")
TEXT = "Say é 日本 🙂\n\n\ta1=2 <|im_end|>x"


def joined(tokens: TokenBytes, ids: list[int]) -> bytes:
    return b"".join(bytes(tokens.content(i)["bytes"]) for i in ids)


def test_byte_level_tokens_join_to_the_text():
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokens = TokenBytes(tokenizer)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert joined(tokens, ids) == TEXT.encode()
    half = tokens.content(tokenizer.encode("é", add_special_tokens=False)[0])
    assert half == {"token": "\ufffd", "bytes": [0xC3]}


def test_every_byte_has_a_token():
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokens = TokenBytes(tokenizer)
    assert {tuple(tokens.content(i)["bytes"]) for i in range(256)} == {(b,) for b in range(256)}


def test_sentencepiece_tokens_join_to_the_text():
    vocab = [
        ("<unk>", 0.0),
        *((f"<0x{b:02X}>", -9.0) for b in range(256)),
        ("\u2581say", -1.0),
        ("\u2581a", -1.5),
    ]
    backend = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokens = TokenBytes(tokenizer)
    ids = tokenizer.encode("say a\u65e5", add_special_tokens=False)
    assert joined(tokens, ids) == " say a\u65e5".encode()
    assert len(ids) == 5


def test_an_unused_row_of_the_embedding_is_empty():
    assert TokenBytes(AutoTokenizer.from_pretrained(BASE)).content(5000) == {"token": "", "bytes": []}


@pytest.mark.parametrize("more", [-3, 0, 7])
def test_token_ids_are_those_that_the_model_embeds_however_many_the_tokenizer_has(tmp_path: Path, more: int):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}<|end|>{% endfor %}"
    folder = str(save_tiny_base(tmp_path / "base", vocab=len(tokenizer) + more))
    tokenizer.save_pretrained(folder)
    service = Service(load(folder, "default"))
    size = service.info()["vocab_size"]
    assert size == load_base(folder).vocab_size == len(tokenizer) + more
    service.check_ids([0, size - 1], "ids")
    with pytest.raises(HoneWorkerError, match=f"0 to {size - 1}; got {size}"):
        service.check_ids([size], "ids")
