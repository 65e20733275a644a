"""What the grammar library panics on is refused, as a request's error: its panics are no `Exception`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_tiny_base, tiny_tokenizer
from engine_process import WorkerProcess
from llguidance import LLTokenizer
from transformers import AutoTokenizer

from hone_worker.base.model import Base
from hone_worker.engine.grammar import Grammar, Grammars, mask
from hone_worker.process.errors import HoneWorkerError

PROMPT = [10, 20, 30]
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "additionalProperties": False}


def with_long_token(tokenizer: Any) -> Any:
    """Some vocabularies have such padding. The library has room for 1024 bytes, and panics."""
    tokenizer.add_tokens(["x" * 2000])
    return tokenizer


def test_of_a_base(tiny_base: Base) -> None:
    grammars = Grammars(dataclasses.replace(tiny_base, tokenizer=with_long_token(tiny_tokenizer())))
    for schema in (None, SCHEMA):
        with pytest.raises(HoneWorkerError, match="tokenizer is of a kind") as failure:
            grammars.compile(schema, ())
        assert failure.value.code == "unsupported_grammar" and failure.value.status == 400
        assert failure.value.param == "response_format"


def test_of_a_grammar(tiny_base: Base) -> None:
    names = [f"a{i}" for i in range(1 << 15)]
    source = "\n".join([f"start: {' | '.join(names)}", *(f'{name}: "x" {name}?' for name in names)])
    with pytest.raises(HoneWorkerError, match="the library that makes grammars fails on it") as failure:
        Grammars(tiny_base).compile_source(source, ())
    assert failure.value.code == "unsupported_schema" and failure.value.status == 400


def test_in_the_middle_of_an_answer_ends_its_own_row_only(tiny_base: Base) -> None:
    class Panicking(Grammar):
        def allowed(self) -> Any:
            LLTokenizer(with_long_token(tiny_tokenizer()).backend_tokenizer.to_str())

    good = Grammars(tiny_base).compile(SCHEMA, ())
    logits = torch.zeros(3, tiny_base.vocab_size)
    errors = mask(logits, [0, 2], [Panicking(good._matcher, good._grammars, good._ends), good])
    assert list(errors) == [0] and errors[0].code == "unsupported_grammar"
    assert logits[:2].isfinite().all()
    assert logits[2].isfinite().tolist() == good.allowed().tolist()


def test_over_http(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "base")
    with_long_token(AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    worker = WorkerProcess(folder, "--served-name", "tiny", "--max-model-len", "64")
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    try:
        for held in (
            {"response_format": wanted},
            {"response_format": {"type": "json_object"}},
            {"structured_outputs": {"grammar": 'start: "a"'}},
        ):
            body = {"model": "tiny", "prompt": PROMPT, **held}
            answer = worker.client.post("/v1/completions", json=body)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["code"] == "unsupported_grammar"
            assert answer.json()["error"]["param"] == "response_format"
            assert worker.complete("tiny", PROMPT, max_tokens=2)["choices"]
    finally:
        worker.end()
