"""Answers that keep to a JSON schema: what is masked, what is reported, how they end, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer
from engine_process import WorkerProcess
from engine_reference import reference_logits

from hone_worker.base.model import Base
from hone_worker.engine.choice import Choice, Stops, Update
from hone_worker.engine.decode import Decoder
from hone_worker.engine.grammar import Grammar, Grammars
from hone_worker.engine.sampling import SamplingParams
from hone_worker.process.errors import HoneWorkerError
from hone_worker.schema.json_schema import check_schema

PROMPT = [10, 20, 30, 40, 50]
WORDS = ["yes", "no", "yellow"]
ENUM = {"enum": WORDS}
END = tiny_tokenizer().convert_tokens_to_ids("<|end|>")
PAD = tiny_tokenizer().convert_tokens_to_ids("<|pad|>")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


class Decoding:
    def __init__(self, base: Base, **options: Any) -> None:
        self.base = base
        self.grammars = Grammars(base)
        self.updates: list[Update] = []
        self.decoder = Decoder(base, self.updates.extend, **{"cache_bytes": 1 << 28, **options})

    def add(
        self,
        schema: dict[str, Any] | None = None,
        *,
        grammar: Grammar | None = None,
        stops: Stops | None = None,
        max_tokens: int = 200,
        top: int = 0,
        **sampling: Any,
    ) -> Choice:
        stops = stops or Stops(eos=frozenset({END}))
        if schema is not None:
            grammar = self.grammars.compile(schema, stops.ids | stops.eos)
        choice = Choice(
            index=0,
            prompt=PROMPT,
            adapter=None,
            sampling=SamplingParams(**{"seed": 1, **sampling}),
            stops=stops,
            max_tokens=max_tokens,
            tokenizer=self.base.tokenizer,
            top=top,
            grammar=grammar,
        )
        self.decoder.enqueue([choice])
        return choice

    def finish(self) -> None:
        for _ in range(3000):
            if not self.decoder.has_work():
                return
            self.decoder.step()
        raise AssertionError("the decoder did not finish")

    def of(self, choice: Choice) -> Update:
        (found,) = [u for u in self.updates if u.choice is choice]
        return found


def possible(text: str) -> set[int]:
    """What may follow in an answer that is one of the words, by nothing but comparing strings."""
    answers = [json.dumps(word) for word in WORDS]
    byte = tiny_tokenizer().convert_tokens_to_ids
    found = {byte(a[len(text)]) for a in answers if a.startswith(text) and len(a) > len(text)}
    return found | ({END} if text in answers else set())


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_logprobs_are_of_what_the_grammar_leaves(
    tiny_base: Base, tiny_folder: Path, temperature: float
) -> None:
    run = Decoding(tiny_base)
    choices = [run.add(ENUM, temperature=temperature, seed=seed, top=20) for seed in range(6)]
    run.finish()
    said = set()
    for choice in choices:
        update = run.of(choice)
        assert update.finish_reason == "stop" and update.stop_reason is None
        assert update.token_ids[-1] == END
        said.add(json.loads(update.text))
        logits = reference_logits(tiny_folder, None, PROMPT, update.token_ids) / (temperature or 1.0)
        for at, token in enumerate(update.token_ids):
            allowed = sorted(possible(tiny_base.tokenizer.decode(update.token_ids[:at])))
            expected = logits[at][allowed].log_softmax(-1)
            assert update.logprobs[at] == pytest.approx(float(expected[allowed.index(token)]), abs=1e-4)
            # Nothing else is listed, and nothing that may be said is left out.
            assert sorted(i for i, _ in update.top[at]) == allowed
            assert sum(torch.tensor([v for _, v in update.top[at]]).exp()) == pytest.approx(1, abs=1e-4)
            if temperature == 0:
                assert float(expected.max()) == pytest.approx(update.logprobs[at], abs=1e-4)
    assert said <= set(WORDS) and (temperature == 0 or len(said) > 1)


def test_rows_without_a_grammar_are_as_they_were(tiny_base: Base) -> None:
    alone = Decoding(tiny_base)
    free = [alone.add(seed=seed, max_tokens=40) for seed in range(4)]
    alone.finish()
    mixed = Decoding(tiny_base)
    with_others = []
    for seed in range(4):
        mixed.add(PERSON, seed=seed, temperature=1.5)
        with_others.append(mixed.add(seed=seed, max_tokens=40))
    mixed.finish()
    for one, other in zip(free, with_others, strict=True):
        assert mixed.of(other).token_ids == alone.of(one).token_ids
        assert mixed.of(other).logprobs == pytest.approx(alone.of(one).logprobs, abs=1e-5)


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.8}, {"top_k": 3}, {"temperature": 3}], ids=str)
def test_answers_keep_to_the_schema(tiny_base: Base, sampling: dict[str, Any]) -> None:
    run = Decoding(tiny_base)
    choices = [run.add(PERSON, seed=seed, **sampling) for seed in range(12)]
    run.finish()
    ended = [u for u in map(run.of, choices) if u.finish_reason == "stop"]
    assert len(ended) > 3
    for update in ended:
        value = json.loads(update.text)
        assert list(value) == ["name", "age", "tags"]
        assert len(value["name"]) <= 12 and value["age"] in range(121) and set(value["tags"]) <= {"a", "b"}
        assert update.text == json.dumps(value, ensure_ascii=False) or "\\" in update.text


def test_any_object_is_an_object(tiny_base: Base) -> None:
    run = Decoding(tiny_base)
    stops = Stops(eos=frozenset({END}))
    grammars = [run.grammars.compile(None, stops.eos) for _ in range(12)]
    choices = [run.add(grammar=g, seed=i, temperature=2) for i, g in enumerate(grammars)]
    run.finish()
    ended = [u for u in map(run.of, choices) if u.finish_reason == "stop"]
    assert ended and all(isinstance(json.loads(u.text), dict) for u in ended)
    assert all(run.of(c).text.startswith("{") for c in choices)


def test_it_ends_as_the_request_ends(tiny_base: Base) -> None:
    run = Decoding(tiny_base)
    by_stop_id = run.add(ENUM, stops=Stops(ids=frozenset({PAD})))
    by_nothing = run.add(ENUM, stops=Stops())
    by_limit = run.add(ENUM, max_tokens=2)
    by_string = run.add({"enum": ["yes"]}, stops=Stops(strings=("es",), eos=frozenset({END})))
    run.finish()
    assert run.of(by_stop_id).token_ids[-1] == PAD and run.of(by_stop_id).stop_reason == PAD
    assert run.of(by_nothing).finish_reason == "stop" and json.loads(run.of(by_nothing).text) in WORDS
    assert run.of(by_nothing).token_ids == run.of(by_stop_id).token_ids[:-1]
    assert run.of(by_limit).finish_reason == "length" and len(run.of(by_limit).token_ids) == 2
    assert run.of(by_string).text == '"y' and run.of(by_string).stop_reason == "es"


def test_a_sequence_that_made_room_for_another_goes_on_where_it_was(tiny_base: Base) -> None:
    roomy = Decoding(tiny_base)
    expected = [roomy.add(PERSON, seed=seed, max_tokens=120) for seed in range(6)]
    roomy.finish()
    cache = roomy.decoder.cache
    tight = Decoding(tiny_base, cache_bytes=cache.bytes_per_token * 200)
    gone_back: list[int] = []
    leave = tight.decoder._leave
    tight.decoder._leave = lambda n, *, keep=True: (
        gone_back.append(n) if not keep else None,
        leave(n, keep=keep),
    )[1]  # type: ignore[method-assign]
    choices = [tight.add(PERSON, seed=seed, max_tokens=120) for seed in range(6)]
    tight.finish()
    assert gone_back
    assert [tight.of(c).token_ids for c in choices] == [roomy.of(c).token_ids for c in expected]


@pytest.mark.parametrize(
    "failure", [HoneWorkerError("too complex", code="unsupported_grammar"), IndexError("of another kind")]
)
def test_a_grammar_that_fails_ends_its_own_row_only(tiny_base: Base, failure: Exception) -> None:
    class Failing(Grammar):
        steps = 0

        def allowed(self) -> Any:
            self.steps += 1
            if self.steps > 3:
                raise failure
            return super().allowed()

    run = Decoding(tiny_base)
    good = run.add(PERSON, seed=2)
    made = run.grammars.compile(PERSON, {END})
    bad = run.add(grammar=Failing(made._matcher, made._grammars, made._ends))
    run.finish()
    error = run.of(bad).error
    assert error is not None and error.code == "unsupported_grammar"
    alone = Decoding(tiny_base)
    same = alone.add(PERSON, seed=2)
    alone.finish()
    assert run.of(good).token_ids == alone.of(same).token_ids


def test_a_base_that_cannot_say_it_fails_as_such(tiny_base: Base) -> None:
    """A token that is allowed must exist: without one for the digits there is no number."""
    grammars = Grammars(tiny_base)
    grammar = grammars.compile({"type": "integer"}, set())
    digits = tiny_base.tokenizer.convert_tokens_to_ids(list("-0123456789"))
    grammars.added_ids = grammars._ids(digits)
    with pytest.raises(HoneWorkerError, match="no token") as failure:
        grammar.allowed()
    assert failure.value.code == "unsupported_grammar"


def test_marks_of_a_template_are_nobodys_text(tiny_base: Base) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool_call>"])
    mark = tokenizer.convert_tokens_to_ids("<tool_call>")
    assert mark < tiny_base.vocab_size
    grammar = Grammars(dataclasses.replace(tiny_base, tokenizer=tokenizer)).compile({"type": "string"}, {END})
    grammar.accept(tokenizer.convert_tokens_to_ids('"'))
    allowed = grammar.allowed()
    assert not allowed[mark] and not allowed[END]
    assert allowed[tokenizer.convert_tokens_to_ids("<")]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}, "not"),
        ({"type": "string", "format": "nonsense"}, "nonsense"),
        ({"$ref": "https://example.com/schema.json"}, "example.com"),
        ({"type": "strin"}, "strin"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"oneOf": [{"type": "string", "minLength": 2}, {"type": "string"}]}, "oneOf"),
        # Its own options must not loosen what the request is held to.
        ({"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}, "uniqueItems"),
    ],
    ids=str,
)
def test_what_a_schema_cannot_say(tiny_base: Base, schema: dict[str, Any], says: str) -> None:
    with pytest.raises(HoneWorkerError) as failure:
        Grammars(tiny_base).compile(schema, {END})
    assert failure.value.code == "unsupported_schema" and failure.value.status == 400
    assert failure.value.param == "response_format.json_schema.schema"
    with pytest.raises(HoneWorkerError) as checked:
        check_schema(schema)
    assert checked.value.message == failure.value.message
    assert says in failure.value.message and "\n" not in failure.value.message
    assert "coerce_one_of" not in failure.value.message


@pytest.fixture(scope="module")
def worker(tiny_folder: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(tiny_folder, "--served-name", "tiny", "--max-model-len", "256")
    yield process
    process.end()


def held(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def test_over_http(worker: WorkerProcess) -> None:
    asked = {"max_tokens": 150, "seed": 3, "n": 4, "response_format": held(PERSON)}
    answer = worker.complete("tiny", PROMPT, **asked)
    assert worker.complete("tiny", PROMPT, **asked)["choices"] == answer["choices"]
    assert len({tuple(c["token_ids"]) for c in answer["choices"]}) == 4
    for choice in answer["choices"]:
        if choice["finish_reason"] == "stop":
            assert list(json.loads(choice["text"])) == ["name", "age", "tags"]
    body = {
        "model": "tiny",
        "prompt": PROMPT,
        "stream": True,
        "logprobs": 0,
        "return_token_ids": True,
        **asked,
    }
    texts = ["", "", "", ""]
    with worker.client.stream("POST", "/v1/completions", json=body) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                (choice,) = json.loads(line[6:])["choices"]
                texts[choice["index"]] += choice["text"]
    assert texts == [c["text"] for c in sorted(answer["choices"], key=lambda c: c["index"])]
    free = worker.complete("tiny", PROMPT, max_tokens=20, seed=3, response_format={"type": "text"})
    assert free["choices"] == worker.complete("tiny", PROMPT, max_tokens=20, seed=3)["choices"]


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        (held({"type": "array", "uniqueItems": True}), "response_format.json_schema.schema"),
        ({"type": "json_schema"}, "response_format"),
        ({"type": "json_object", "json_schema": {"schema": {}}}, "response_format"),
        ({"type": "regex"}, "response_format.type"),
        ({"type": "json_schema", "json_schema": {"schema": True}}, "response_format.json_schema.schema"),
    ],
    ids=str,
)
def test_refusals_over_http(worker: WorkerProcess, wanted: Any, param: str) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "response_format": wanted}
    answer = worker.client.post("/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert worker.complete("tiny", PROMPT, max_tokens=2)["choices"]


def test_a_mark_that_a_grammar_names_is_sampled_there_and_is_no_text(tiny_base: Base) -> None:
    """`<|pad|>` stands for a mark of calls: an added token, which no string of an answer may hold."""
    grammars = Grammars(tiny_base)
    source = f'start: <[{PAD}]> "a" inner <[{PAD}]>\ninner: %json {{"type": "string", "maxLength": 4}}\n'
    grammar = grammars.compile_source(source, {END})
    tokenizer = tiny_base.tokenizer
    written = [PAD, *tokenizer.encode('a"xy', add_special_tokens=False)]
    for token in written:
        assert grammar.allowed()[token]
        grammar.accept(token)
    inside = grammar.copy().allowed()
    assert not inside[PAD] and not inside[END]
    for token in tokenizer.encode('"', add_special_tokens=False):
        grammar.accept(token)
    assert np.flatnonzero(grammar.allowed()).tolist() == [PAD]
    grammar.accept(PAD)
    assert np.flatnonzero(grammar.allowed()).tolist() == [END]


@pytest.mark.parametrize("mark", [99999999, 99999999999999999999])
def test_what_callers_write_is_no_mark(tiny_base: Base, mark: int) -> None:
    source = f'start: <[{PAD}]> "<[{mark}]>" inner\ninner: %json {{"enum": ["<[{mark}]>"]}}\n'
    grammar = Grammars(tiny_base).compile_source(source, {END})
    assert np.flatnonzero(grammar.allowed()).tolist() == [PAD]
