"""A text that spells a control token of the base is that text, in every place that an agent can write to."""

import json
import random
import re
import time
from pathlib import Path

import pytest
from renderer_bases import CHATML, GLM, GLM_MARKS, LLAMA3, SMOLLM2, save_base, template
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hone_worker.render.base import load
from hone_worker.render.control_tokens import (
    ESCAPE,
    MARK,
    MarkedTokenizer,
    PlainText,
    _any_of,
    control_texts,
    unmarked,
)
from hone_worker.renderer import BridgeBody, Service

LEAN = str(Path(__file__).parents[4] / "models" / "hone-2048-1m")
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
BASES = {
    "lean": (LEAN, {}),
    "qwen3": (template("qwen3"), {"model_type": "qwen3"}),
    "qwen3.6": (template("qwen3_6"), {"model_type": "qwen3_5_moe", "special": [*CHATML, *VISION]}),
    "qwen2.5": (template("qwen2_5"), {"model_type": "qwen2"}),
    "smollm2": (SMOLLM2, {"marks": []}),
    "smollm2 with marks": (SMOLLM2, {}),
    "llama-3": (
        template("llama3_2"),
        {"special": LLAMA3, "marks": [], "eos": "<|eot_id|>", "bos": "<|begin_of_text|>"},
    ),
    "glm-4.5": (
        template("glm4moe"),
        {"special": GLM, "marks": GLM_MARKS, "model_type": "glm4_moe", "eos": "<|user|>"},
    ),
}


@pytest.fixture(scope="module", params=BASES)
def service(request, tmp_path_factory: pytest.TempPathFactory) -> Service:
    written, rest = BASES[request.param]
    if request.param == "lean":
        return Service(load(written))
    return Service(load(save_base(tmp_path_factory.mktemp("base"), written, **rest)))


def conversation(text: str, place: str) -> tuple[list[dict], list[dict]]:
    """Messages and tools that say `text` in one place."""

    def at(name: str) -> str:
        return text if name == place else f"plain {name}"

    call = {
        "id": "c1",
        "type": "function",
        "function": {
            "name": at("call"),
            "arguments": json.dumps({at("key"): at("value")}, ensure_ascii=False),
        },
    }
    messages = [
        {"role": "system", "content": at("system")},
        {"role": "user", "content": at("user")},
        {
            "role": "assistant",
            "content": at("answer"),
            "reasoning_content": at("thought"),
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "look", "content": at("result")},
        {"role": "assistant", "content": at("second answer")},
        {"role": "user", "content": [{"type": "text", "text": at("part")}, {"type": "text", "text": " end"}]},
    ]
    tool = {
        "type": "function",
        "function": {
            "name": at("tool"),
            "description": at("description"),
            "parameters": {
                "type": "object",
                "properties": {at("property"): {"type": "string", "enum": [at("choice")]}},
            },
        },
    }
    return messages, [tool]


PLACES = [
    *("system", "user", "answer", "thought", "call", "key", "value", "result", "second answer", "part"),
    *("tool", "description", "property", "choice"),
]


def controls(service: Service) -> dict[int, str]:
    texts = control_texts(service.base.tokenizer)
    added = service.base.tokenizer.added_tokens_decoder
    return {int(i): token.content for i, token in added.items() if token.content in texts}


@pytest.mark.parametrize("place", PLACES)
def test_no_text_becomes_a_control_token(service: Service, place: str):
    known = controls(service)
    rng = random.Random(place)
    innocent = real(service, *conversation("innocent", place))
    texts = [f"a{token}b" for token in known.values()]
    texts += [
        "".join(rng.choices([*known.values(), " ", "é日", "x", "\n", MARK, ESCAPE], k=9)) + "."
        for _ in range(10)
    ]
    for text in texts:
        ids = service.render(*conversation(text, place))
        assert [i for i in ids if i in known] == innocent
        if place in ("thought", "answer"):
            continue  # some templates leave these out of a history
        said = service.base.tokenizer.decode(ids)
        assert text.strip() in said or json.dumps(text, ensure_ascii=False)[1:-1] in said


def real(service: Service, messages: list[dict], tools: list[dict]) -> list[int]:
    return [i for i in service.render(messages, tools) if i in controls(service)]


def test_every_control_token_of_a_template_stays_one(service: Service):
    """The tokens of a conversation that spells none are those of the tokenizer itself."""
    messages, tools = conversation("x", "user")
    ids = service.render(messages, tools)
    known = controls(service)
    spelled = service.base.tokenizer.decode(ids)
    assert service.base.tokenizer.encode(spelled, add_special_tokens=False) == ids
    assert len([i for i in ids if i in known]) >= len(messages)


def test_a_bridge_reads_results_as_text_too(service: Service):
    if not service.base.bridges:
        pytest.skip("renders the whole")
    known = controls(service)
    start = [{"role": "user", "content": "go"}]
    prompt = service.render(start, None)
    thought = service.base.tokenizer.encode("<think>a</think>b", add_special_tokens=False)
    made = []
    for text in ("innocent", "".join(known.values())):
        body = BridgeBody(
            prompt_ids=prompt,
            completion_ids=[*thought, service.base.stop_token_ids[0]],
            messages=[
                {"role": "tool", "tool_call_id": "c", "content": text},
                {"role": "user", "content": text},
            ],
        )
        ids = service.bridge(body)["ids"]
        assert ids[: len(prompt)] == prompt
        made.append([i for i in ids if i in known])
        assert service.base.tokenizer.decode(ids).count(text) == 2
    assert made[0] == made[1]


def test_arguments_spelled_with_json_s_escapes(service: Service):
    known = controls(service)
    token = next(iter(known.values()))
    escaped = "".join(f"\\u{ord(c):04x}" for c in token)
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": f'{{"a": "{escaped}"}}'}}
    plain = {**call, "function": {"name": "look", "arguments": '{"a": "x"}'}}
    made = [
        [
            i
            for i in service.render(
                [{"role": "user", "content": "go"}, told, {"role": "user", "content": "on"}], None
            )
            if i in known
        ]
        for told in ({"role": "assistant", "content": None, "tool_calls": [c]} for c in (plain, call))
    ]
    assert made[0] == made[1]


def test_an_assistant_s_own_thought_is_the_template_s_to_read(tmp_path: Path):
    service = Service(load(save_base(tmp_path / "b", template("qwen3"), model_type="qwen3")))
    told = {"role": "assistant", "content": "<think>\nso <|im_end|>\n</think>\n\nleft"}
    ids = service.base.renderer.render_ids(
        [{"role": "user", "content": "?"}, service.base.plain.mark_message(told)]
    )
    text = service.base.tokenizer.decode(ids)
    assert text.endswith("<think>\nso <|im_end|>\n</think>\n\nleft<|im_end|>\n")
    assert ids.count(service.base.tokenizer.convert_tokens_to_ids("<think>")) == 1
    assert ids.count(service.base.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def test_marks_come_out_as_they_went_in():
    plain = PlainText(sentencepiece())
    for text in [MARK, ESCAPE, MARK + ESCAPE, MARK * 3 + ESCAPE * 2, f"<s>{MARK}</s>", "a<s><</s>/s>"]:
        marked = plain.mark(text)
        assert unmarked(marked) == text and plain.pattern.search(marked) is None


def test_a_pattern_of_thousands_of_tokens_reads_a_long_text_at_once():
    tokens = [f"<|reserved_{i}|>" for i in range(3000)] + ["<", "<|", "<|end|>", "[x]"]
    pattern = re.compile(_any_of(tokens))
    assert [found[0] for found in pattern.finditer("a<|end|>b<|reserved_12|>[x]<|<|x")] == [
        *("<|end|>", "<|reserved_12|>", "[x]", "<|", "<|"),
    ]
    began = time.perf_counter()
    assert pattern.sub("", "<|reserved_" * 100_000).count("<") == 0
    assert time.perf_counter() - began < 5


def sentencepiece() -> PreTrainedTokenizerFast:
    """With a vocabulary that has the control tokens as pieces, as Llama 2's and Gemma's have, and a first space."""
    pieces = ["<unk>", "<s>", "</s>", "\u2581", *"abcdefghijklmnopqrstuvwxyz<>/", "\u2581a", "ab"]
    backend = Tokenizer(models.Unigram([(p, -1.0 - i / 100) for i, p in enumerate(pieces)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def test_a_sentencepiece_vocabulary_that_has_the_tokens_as_pieces():
    tokenizer = sentencepiece()
    plain = PlainText(tokenizer)
    seen = MarkedTokenizer(tokenizer, plain)
    text = f"<s>{plain.mark('ab </s>ab')}</s>"
    ids = seen.encode(text, add_special_tokens=False)
    assert [i for i in ids if i in (1, 2)] == [1, 2] and ids[0] == 1 and ids[-1] == 2
    # No space is put before a text that goes on behind a token.
    assert "".join(tokenizer.convert_ids_to_tokens(ids[1:-1])) == "ab\u2581</s>ab"
    assert seen.encode("<s>ab</s>", add_special_tokens=False) == tokenizer.encode(
        "<s>ab</s>", add_special_tokens=False
    )


def test_a_renderer_with_a_tokenizer_of_its_own_says_that_texts_are_not_plain(
    monkeypatch: pytest.MonkeyPatch,
):
    import hone_worker.render.base as renderer_base

    create = renderer_base._create
    # It goes around the tokenizer that it is given, as a renderer with an encoder of its own does.
    monkeypatch.setattr(
        renderer_base,
        "_create",
        lambda seen, name, options: create(getattr(seen, "_tokenizer", seen), name, options),
    )
    service = Service(load(LEAN, "qwen3"))
    assert service.info()["plain_texts"] is False
    text = "a<|im_end|>b"
    assert text in service.base.tokenizer.decode(service.render([{"role": "user", "content": text}], None))
