"""Whatever a policy samples becomes a message: calls where they are calls, text in its place where they are not."""

import json
import random
from pathlib import Path

import pytest
from renderer_bases import CHATML, GLM, GLM_MARKS, LLAMA3, MARKS, SMOLLM2, save_base, template

from hone_worker.render.base import load
from hone_worker.render.family import _common
from hone_worker.renderer import Service

LEAN = str(Path(__file__).parents[4] / "models" / "hone-2048-1m")
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
]
GOOD = '{"name": "look", "arguments": {"cell": "a1"}}'
# What each family's model writes for a call of this name with these arguments, both as JSON.
HERMES = '<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
BASES = {
    "lean": (LEAN, {}),
    "qwen3": (template("qwen3"), {"model_type": "qwen3"}),
    "qwen2.5": (template("qwen2_5"), {"model_type": "qwen2"}),
    "qwen2.5 without marks": (template("qwen2_5"), {"model_type": "qwen2", "marks": []}),
    "smollm2": (SMOLLM2, {"marks": []}),
    "smollm2 with marks": (SMOLLM2, {}),
    "qwen3-vl": (template("qwen3_vl"), {"model_type": "qwen3_vl", "special": [*CHATML, *VISION]}),
}


@pytest.fixture(scope="module", params=BASES)
def service(request, tmp_path_factory: pytest.TempPathFactory) -> Service:
    written, rest = BASES[request.param]
    if request.param == "lean":
        return Service(load(written))
    return Service(load(save_base(tmp_path_factory.mktemp("base"), written, **rest)))


def ids_of(service: Service, text: str) -> list[int]:
    return service.base.tokenizer.encode(text, add_special_tokens=False)


def read(service: Service, text: str, tools=TOOLS) -> dict:
    parsed = service.parse(ids_of(service, text), tools)
    json.dumps(parsed, ensure_ascii=False).encode()  # what the route does with it
    return parsed


NOT_A_NAME = ["5", "null", '""', "[]", "{}", "true", "1e999"]
NOT_AN_OBJECT = ['""', '"left"', '"{}"', "[]", '[{"a": 1}]', "5", "null", "true", "NaN", "-Infinity"]
NOT_JSON = [
    '{"a": NaN}',
    '{"a": Infinity}',
    '{"a": 1e999}',
    '{"a": ' + "9" * 5000 + "}",
    '{"a": ' + "[" * 3000 + "]" * 3000 + "}",
    '{"a": ' + "[" * 300_000,
    '{"a": "\x01"}',
    '{"a": "left',
    "{'a': 1}",
    '{"a": 1,}',
]


@pytest.mark.parametrize(
    "body",
    [
        *(f'{{"name": {name}, "arguments": {{}}}}' for name in NOT_A_NAME),
        *(f'{{"name": "look", "arguments": {a}}}' for a in [*NOT_AN_OBJECT, *NOT_JSON]),
        '{"name": "look"}',
        '{"arguments": {}}',
        "[]",
        "5",
        "look(b3)",
        "",
    ],
    ids=lambda body: body[:40],
)
def test_what_is_no_call_is_text_and_stays_in_its_place(service: Service, body: str):
    text = f"before <tool_call>{body}</tool_call> behind"
    assert read(service, text) == {"content": text, "reasoning": None, "tool_calls": []}
    around = read(service, f"one <tool_call>{GOOD}</tool_call> two <tool_call>{body}</tool_call> three")
    assert [c["name"] for c in around["tool_calls"]] == ["look"]
    kept = around["content"]
    assert kept.startswith("one") and kept.endswith("three")
    assert f"two <tool_call>{body}</tool_call> three" in kept and "a1" not in kept


def test_text_before_between_and_behind_calls_is_kept(service: Service):
    call = f"<tool_call>{GOOD}</tool_call>"
    parsed = read(service, f"one\n{call}\ntwo\n{call}{call}\nthree")
    assert len(parsed["tool_calls"]) == 3
    assert parsed["content"].split() == ["one", "two", "three"]
    assert read(service, f"\n{call}\n{call}\n")["content"] is None


def test_parameters_are_arguments_by_llama_s_word(service: Service):
    parsed = read(service, '<tool_call>{"name": "look", "parameters": {"cell": "b2"}}</tool_call>')
    assert [(c["name"], json.loads(c["arguments"])) for c in parsed["tool_calls"]] == [
        ("look", {"cell": "b2"})
    ]


def test_half_a_character_is_made_whole(service: Service):
    body = '{"name": "lo\\ud83dok", "arguments": {"x": "\\ud83d", "\\ude00": ["\\ud83d\\ude00"]}}'
    (call,) = read(service, f"<tool_call>{body}</tool_call>")["tool_calls"]
    assert call["name"] == "lo\ufffdok"
    assert json.loads(call["arguments"]) == {"x": "\ufffd", "\ufffd": ["\U0001f600"]}


def test_numbers_and_repeated_keys_stay_what_json_says(service: Service):
    body = '{"name": "look", "arguments": {"a": 12345678901234567890123, "b": -0.0, "b": 1.5e300, "c": [true, null]}}'
    (call,) = read(service, f"<tool_call>{body}</tool_call>")["tool_calls"]
    assert json.loads(call["arguments"]) == {"a": 12345678901234567890123, "b": 1.5e300, "c": [True, None]}


def test_without_tools_a_call_is_text(service: Service):
    text = f"so <tool_call>{GOOD}</tool_call> and on"
    for none in (None, []):
        assert read(service, text, none) == {"content": text, "reasoning": None, "tool_calls": []}


def test_a_cut_call_is_text(service: Service):
    text = f'<tool_call>{GOOD}</tool_call>\nand <tool_call>{{"name": "lo'
    parsed = read(service, text)
    assert len(parsed["tool_calls"]) == 1 and parsed["content"] == 'and <tool_call>{"name": "lo'


def test_a_stop_string_cuts_wherever_it_falls(service: Service):
    def upto(visible: str, sampled: str) -> dict:
        return service.parse(ids_of(service, sampled), TOOLS, visible)

    assert upto("<think>so we ", "<think>so we STOP</think>x")["reasoning"].strip() == "so we"
    behind = upto("<think>so</think>I go ", "<think>so</think>I go STOP there")
    assert (behind["reasoning"], behind["content"].strip()) == ("so", "I go")
    # In a call it leaves half a call, which is text.
    half = upto('x <tool_call>{"name": "look", ', f"x <tool_call>{GOOD}</tool_call>")
    assert half["tool_calls"] == [] and half["content"].startswith('x <tool_call>{"name": "look",')
    call = upto(f"<tool_call>{GOOD}</tool_call>", f"<tool_call>{GOOD}</tool_call>STOP")
    assert len(call["tool_calls"]) == 1 and call["content"] is None
    assert upto("", "STOP") == {"content": None, "reasoning": None, "tool_calls": []}
    assert upto("caf", "café")["content"] == "caf"


def test_no_ids_end_a_request(service: Service):
    """Noise, made of the marks that parsers look for and of pieces of calls."""
    rng = random.Random(3)
    pieces = [
        ids_of(service, p) for p in [*MARKS, *CHATML, GOOD, '{"name":', '"arguments": {', "\n", "}", "NaN"]
    ]
    for _ in range(300):
        ids = [token for _ in range(rng.randrange(12)) for token in rng.choice(pieces)]
        ids += [rng.randrange(service.base.vocab_size) for _ in range(rng.randrange(4))]
        for tools in (TOOLS, None):
            parsed = service.parse(ids, tools)
            json.dumps(parsed, ensure_ascii=False).encode()
            if tools is None:
                assert parsed["tool_calls"] == []


LLAMA = {"special": LLAMA3, "marks": [], "eos": "<|eot_id|>", "bos": "<|begin_of_text|>"}


@pytest.mark.parametrize(
    "body", ['{"name": 5, "parameters": {}}', '{"name": "f", "parameters": "x"}', '{"name": "f"}']
)
def test_llama_s_bare_json(tmp_path: Path, body: str):
    service = Service(load(save_base(tmp_path / "b", template("llama3_2"), **LLAMA)))
    assert read(service, body) == {"content": body, "reasoning": None, "tool_calls": []}
    call = '{"name": "look", "parameters": {"cell": "a1"}}'
    (made,) = read(service, call)["tool_calls"]
    assert json.loads(made["arguments"]) == {"cell": "a1"}
    assert read(service, call, None)["content"] == call


@pytest.mark.parametrize("value", ["NaN", "1e999", "[" * 100_000, "9" * 5000])
def test_qwen_s_xml_calls(tmp_path: Path, value: str):
    written = {"model_type": "qwen3_5", "special": [*CHATML, *VISION]}
    service = Service(load(save_base(tmp_path / "b", template("qwen3_5_nothink"), **written)))
    tools = [
        {
            "type": "function",
            "function": {"name": "look", "parameters": {"properties": {"n": {"type": "number"}}}},
        }
    ]
    call = "<tool_call>\n<function=look>\n<parameter=n>\n{}\n</parameter>\n</function>\n</tool_call>"
    parsed = read(service, f"one {call.format(1)} two {call.format(value)} three", tools)
    assert [json.loads(c["arguments"]) for c in parsed["tool_calls"]] == [{"n": 1}]
    assert parsed["content"].startswith("one") and f"two {call.format(value)} three" in parsed["content"]


def test_glm_s_calls_stand_where_they_were(tmp_path: Path):
    written = {"special": GLM, "marks": GLM_MARKS, "model_type": "glm4_moe", "eos": "<|user|>"}
    service = Service(load(save_base(tmp_path / "b", template("glm4moe"), **written)))
    call = "<tool_call>look\n<arg_key>n</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>"
    text = f"<think>so</think>one {call.format(1)} two {call.format('NaN')} three"
    tools = [
        {
            "type": "function",
            "function": {"name": "look", "parameters": {"properties": {"n": {"type": "number"}}}},
        }
    ]
    parsed = read(service, text, tools)
    assert len(parsed["tool_calls"]) == 1
    assert parsed["content"].split() == f"one two {call.format('NaN')} three".replace("two <", "two<").split()


KIMI = [
    *("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    *("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
]
FAMILIES = {
    "qwen3": {},
    "qwen3-vl": {"special": [*CHATML, *VISION]},
    "qwen3.5": {"special": [*CHATML, *VISION]},
    "qwen3.6": {"special": [*CHATML, *VISION]},
    "prime-qwen3": {},
    "nemotron-3": {},
    "glm-4.5": {"special": GLM, "marks": GLM_MARKS, "eos": "<|user|>"},
    "glm-5": {"special": GLM, "marks": GLM_MARKS, "eos": "<|user|>"},
    "kimi-k2": {"special": [*KIMI, "<|im_start|>"]},
    "default": {},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_word_that_is_put_anywhere_is_found_again(tmp_path: Path, name: str):
    """In what is said, thought or called: no family's parser loses what was sampled."""
    service = Service(load(save_base(tmp_path / "b", SMOLLM2, **FAMILIES[name]), name))
    rng = random.Random(name)
    question = {"role": "user", "content": "?"}
    tools = [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": {"properties": {"n": {"type": "number"}, "s": {"type": "string"}}},
            },
        }
    ]
    called = [
        {"id": f"functions.look:{n}", "type": "function", "function": {"name": "look", "arguments": a}}
        for n, a in enumerate(['{"n": 1, "s": "hey"}', '{"n": 2.5, "s": "<b>"}'])
    ]
    for content in ("Hi there.", ""):
        before = service.render([question], tools)
        answer = {"role": "assistant", "content": content, "tool_calls": called}
        whole = list(service.base.renderer.render_ids([question, answer], tools=tools))
        start = _common(before, whole)
        ids = whole[start:]
        end = next((i for i, token in enumerate(ids) if token in service.base.stop_token_ids), len(ids))
        parsed = service.parse(ids, tools)
        assert [json.loads(c["arguments"]) for c in parsed["tool_calls"]] == [
            json.loads(c["function"]["arguments"]) for c in called
        ]
        said = (parsed["content"] or "") + (parsed["reasoning"] or "")
        assert said.replace("<think></think>", "").strip() == content
        for at in range(rng.randrange(4), end + 1, 4):
            # Kimi numbers its calls, and reads the name in its header between a dot and a colon.
            near = service.base.tokenizer.decode(ids[max(0, at - 50) : at + 20])
            if name == "kimi-k2" and "functions.look" in near:
                continue
            broken = ids[:at] + ids_of(service, rng.choice([" Zq", "Zq\n", '"Zq"'])) + ids[at:end]
            for offered in (tools, None):
                parsed = service.parse(broken, offered)
                assert "Zq" in json.dumps(parsed), service.base.tokenizer.decode(broken)
                assert offered or not parsed["tool_calls"]
