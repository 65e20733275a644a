"""Grammars of calls: read from what a base's own renderer writes, and read back by it."""

from __future__ import annotations

import asyncio
import json

import pytest
from llguidance import LLMatcher, LLTokenizer
from renderer_bases import CHATML, GLM, GLM_MARKS, MARKS, SMOLLM2, save_base, template

from hone_worker.engine.grammar import _all_special
from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import load
from hone_worker.render.call_grammar import arguments_of, call_grammar
from hone_worker.render.sampled_answer import read_answer
from hone_worker.renderer import CallsBody, Service

VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
MOVE = {
    "type": "object",
    "properties": {"way": {"$ref": "#/$defs/way"}},
    "required": ["way"],
    "additionalProperties": False,
    "$defs": {"way": {"enum": ["left", "</tool_call>"]}},
}
ANY = {"type": "object", "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("move", 'a"b')]
BASES = {
    "qwen3": (template("qwen3"), {"model_type": "qwen3"}),
    "qwen2.5": (template("qwen2_5"), {"model_type": "qwen2"}),
    "smollm2": (SMOLLM2, {"marks": []}),
    "smollm2 with marks": (SMOLLM2, {"marks": MARKS}),
}


@pytest.fixture(params=BASES, scope="module")
def base(request, tmp_path_factory):
    chat_template, options = BASES[request.param]
    return load(save_base(tmp_path_factory.mktemp("base"), chat_template, **options))


def takes(base, source: str, text: str) -> bool:
    """Whether the grammar takes all of the text, as the base's tokenizer has it, and may end there."""
    tokenizer = LLTokenizer(_all_special(base.tokenizer))
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(source))
    assert not matcher.get_error()
    ids = base.tokenizer.encode(text, add_special_tokens=False)
    return matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and matcher.is_accepting()


def written(base, *calls: tuple[str, dict]) -> str:
    form = base.calls
    return form.between.join(
        f"<tool_call>{form.before}{json.dumps({'name': n, 'arguments': a})}{form.behind}</tool_call>"
        for n, a in calls
    )


def test_what_a_grammar_of_calls_takes_is_read_back_as_those_calls(base):
    source = call_grammar(base.calls, {"move": MOVE, 'a"b': ANY}, single=False, final=None)
    for calls in ([("move", {"way": "left"})], [('a"b', {}), ("move", {"way": "left"}), ('a"b', {})]):
        text = written(base, *calls)
        assert takes(base, source, text)
        ids = base.tokenizer.encode(text, add_special_tokens=False)
        made = read_answer(base, ids, TOOLS)["tool_calls"]
        assert [(call["name"], json.loads(call["arguments"])) for call in made] == calls


def test_nothing_else_is_taken(base):
    many = call_grammar(base.calls, {"move": MOVE}, single=False, final=None)
    one = call_grammar(base.calls, {"move": MOVE}, single=True, final=None)
    left = ("move", {"way": "left"})
    assert takes(base, one, written(base, left))
    assert not takes(base, one, written(base, left, left))
    for text in (
        "",
        "hello",
        "Well. " + written(base, left),
        written(base, left) + " Done.",
        written(base, ("fly", {"way": "left"})),
        written(base, ("move", {"way": "up"})),
        written(base, ("move", {})),
        '{"way": "left"}',
    ):
        assert not takes(base, many, text)


def test_a_final_object_may_stand_in_place_of_calls_and_not_beside_them(base):
    final = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    source = call_grammar(base.calls, {"move": MOVE}, single=False, final=final)
    call = written(base, ("move", {"way": "left"}))
    assert takes(base, source, '{"a": 3}')
    assert takes(base, source, call)
    assert not takes(base, source, call + '{"a": 3}')
    assert not takes(base, source, '{"a": 3}' + call)
    assert not takes(base, source, '{"a": "3"}')


@pytest.mark.parametrize(
    ("chat_template", "options"),
    [
        (
            "glm4moe",
            {"special": GLM, "marks": GLM_MARKS, "model_type": "glm4_moe", "eos": "<|endoftext|>"},
        ),
        ("qwen3_5_nothink", {"special": [*CHATML, *VISION], "model_type": "qwen3_5"}),
        ("qwen3_6", {"special": [*CHATML, *VISION], "model_type": "qwen3_5_moe"}),
    ],
)
def test_a_base_that_writes_calls_in_tags_has_no_grammar_and_says_so(tmp_path, chat_template, options):
    base = load(save_base(tmp_path / "base", template(chat_template), **options))
    assert base.name != "default"
    with pytest.raises(HoneWorkerError, match=r'no grammar is made for.* Send "auto"') as raised:
        asyncio.run(Service(base).calls(CallsBody(tools=TOOLS, single=False, final=None)))
    assert raised.value.param == "tool_choice"


def test_arguments_are_an_object():
    assert arguments_of({"function": {"name": "f"}}, 0) == {"type": "object"}
    with pytest.raises(HoneWorkerError, match="are an object") as raised:
        arguments_of({"function": {"name": "f", "parameters": {"type": "string"}}}, 2)
    assert raised.value.param == "tools[2].function.parameters"


def test_schemas_that_are_too_long_together_are_refused(base):
    long = {"type": "object", "description": "x" * 40_000}
    with pytest.raises(HoneWorkerError, match="65536 characters"):
        call_grammar(base.calls, {"a": long, "b": long}, single=False, final=None)
