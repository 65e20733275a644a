"""Twenty turns with tools: every prompt begins with the previous prompt and what was sampled, token for token."""

import json
import random
from pathlib import Path

import pytest

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import load
from hone_worker.renderer import BridgeBody, Service

BASE = str(Path(__file__).parents[4] / "models" / "hone-2048-1m")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Look at a cell",
            "parameters": {
                "type": "object",
                "properties": {"cell": {"type": "string"}, "deep": {"type": "boolean"}},
            },
        },
    }
]


@pytest.fixture(scope="module", params=["lean", "qwen3"])
def service(request) -> Service:
    return Service(load(BASE, request.param))


def call(arguments: str) -> str:
    return f'<tool_call>{{"name": "look", "arguments": {arguments}}}</tool_call>'


def spelled_otherwise(service: Service, text: str, rng: random.Random) -> list[int]:
    """Ids that decode to the text, but are not the ones that encoding it gives."""
    ids: list[int] = []
    for token in service.base.tokenizer.encode(text, add_special_tokens=False):
        raw = bytes(service.base.tokens.content(token)["bytes"])
        marked = token in service.base.tokenizer.added_tokens_decoder
        if marked or len(raw) == 1 or rng.random() < 0.3:
            ids.append(token)
        else:
            ids += list(byte_ids(service, raw))
    return ids


def byte_ids(service: Service, raw: bytes):
    for byte in raw:
        (found,) = [i for i in range(256) if service.base.tokens.content(i)["bytes"] == [byte]]
        yield found


def answers(service: Service, rng: random.Random, *, canonical: bool):
    """(completion ids, the messages that follow it) for twenty turns."""
    close = service.base.tokenizer.convert_tokens_to_ids("<|im_end|>")
    encode = lambda text: service.base.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    for turn in range(20):
        kind = turn % 5
        text = (
            "the answer is left é 日本 a1=2"
            if kind != 1
            else "<think>which one</think>I look " + call('{"cell": "a1", "deep": true}')
        )
        if kind == 3:
            text += call('{"cell": "b1", "deep": false}') + call('{"cell":   "b2"}')
        ids = encode(text) if canonical else spelled_otherwise(service, text, rng)
        if not canonical:
            assert ids != encode(text)
            assert service.base.tokenizer.decode(ids, skip_special_tokens=False) == text
        if kind == 2:
            ids = ids[: len(ids) // 2]  # cut by length: no close
        elif kind == 4:
            ids = [*ids[:3], *[rng.randrange(256) for _ in range(8)], close]  # noise, not even UTF-8
        else:
            ids = [*ids, close]
        if kind == 1:
            new = [{"role": "tool", "tool_call_id": "c1", "content": '{"value": false, "next": null}'}]
        elif kind == 3:
            new = [
                {"role": "tool", "tool_call_id": "c1", "content": "4"},
                {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "<|im_end|>"}]},
                {"role": "user", "content": "and now?"},
            ]
        elif kind == 0:
            new = [{"role": "user", "content": "first"}, {"role": "user", "content": "and second"}]
        else:
            new = [{"role": "user", "content": "a1=2 a2=.\nlegal: up"}]
        yield ids, new


@pytest.mark.parametrize("canonical", [True, False], ids=["canonical", "spelled otherwise"])
def test_every_prompt_begins_with_all_that_came_before(service: Service, canonical: bool):
    rng = random.Random(1)
    prompt = service.render(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "go"}], TOOLS
    )
    opening = service.base.generation_prompt
    for completion, new in answers(service, rng, canonical=canonical):
        body = BridgeBody(prompt_ids=prompt, completion_ids=completion, messages=new, tools=TOOLS)
        ids = service.bridge(body)["ids"]
        assert ids is not None
        assert ids[: len(prompt) + len(completion)] == prompt + completion
        added = service.base.tokenizer.decode(ids[len(prompt) + len(completion) :], skip_special_tokens=False)
        assert ids[-len(opening) :] == opening
        for message in new:
            content = message["content"]
            assert (content if isinstance(content, str) else content[0]["text"]) in added
        closed = completion[-1] in service.base.stop_token_ids
        assert added.startswith("<|im_end|>") == (not closed)
        prompt = ids
    assert len(prompt) > 800


def test_bridges_give_what_a_full_rendering_gives(service: Service):
    """For canonical, closed answers without thoughts the two ways must agree."""
    encode = service.base.tokenizer.encode
    messages: list[dict] = [{"role": "user", "content": "go"}]
    prompt = service.render(messages, TOOLS)
    for turn in range(6):
        if turn % 2:
            arguments = '{"cell": "a1"}'
            text = (
                call(arguments)
                if service.base.name == "lean"
                else call(arguments).replace(">{", ">\n{").replace("}<", "}\n<")
            )
            tool_calls = [
                {"id": "c", "type": "function", "function": {"name": "look", "arguments": arguments}}
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": tool_calls})
            new = [{"role": "tool", "tool_call_id": "c", "content": "7"}]
        else:
            text = "left"
            messages.append({"role": "assistant", "content": text})
            new = [{"role": "user", "content": "more"}]
        if service.base.name == "qwen3":
            messages[-1]["reasoning_content"] = "so"
            text = "<think>\nso\n</think>\n\n" + text
        completion = encode(text + "<|im_end|>", add_special_tokens=False)
        body = BridgeBody(prompt_ids=prompt, completion_ids=completion, messages=new)
        prompt = service.bridge(body)["ids"]
        messages += new
        if service.base.name == "lean":
            assert prompt == service.render(messages, TOOLS)
    if service.base.name == "qwen3":
        # The template drops the thoughts of earlier questions, the bridge keeps them.
        assert prompt != service.render(messages, TOOLS)


def test_sampled_answers_are_read(service: Service):
    tokenizer = service.base.tokenizer
    text = (
        "<think>which one</think>I look "
        + call('{"cell": "é", "deep": true}')
        + call("[broken")
        + "<|im_end|>"
    )
    parsed = service.parse(spelled_otherwise(service, text, random.Random(2)), TOOLS)
    assert parsed["reasoning"] == "which one"
    assert [c["name"] for c in parsed["tool_calls"]] == ["look"]
    assert json.loads(parsed["tool_calls"][0]["arguments"]) == {"cell": "é", "deep": True}
    assert parsed["tool_calls"][0]["id"] is None
    assert parsed["content"].startswith("I look") and "[broken" in parsed["content"]
    plain = service.parse(tokenizer.encode("left<|im_end|>", add_special_tokens=False), None)
    assert plain == {"content": "left", "reasoning": None, "tool_calls": []}
    nothing = service.parse(tokenizer.encode("<|im_end|>", add_special_tokens=False), None)
    assert nothing == {"content": None, "reasoning": None, "tool_calls": []}


def test_what_cannot_be_bridged_says_why(service: Service):
    close = service.base.stop_token_ids[0]
    answer = BridgeBody(
        prompt_ids=[1], completion_ids=[2, close], messages=[{"role": "assistant", "content": "x"}]
    )
    assert service.bridge(answer)["ids"] is None
    assert "not sampled" in service.bridge(answer)["reason"]


def test_tokens_after_a_close_are_never_given_up(service: Service):
    close = service.base.stop_token_ids[0]
    body = BridgeBody(
        prompt_ids=[1], completion_ids=[2, close, 3], messages=[{"role": "user", "content": "x"}]
    )
    made = service.bridge(body)
    if made["ids"] is None:
        assert "after the token" in made["reason"]
    else:
        assert made["ids"][:4] == [1, 2, close, 3]


def test_a_bridge_costs_what_is_new(service: Service, monkeypatch: pytest.MonkeyPatch):
    """However long the prompt is, the renderer looks at the same few tokens of it."""
    seen: list[tuple] = []
    bridge = service.base.renderer.bridge_to_next_turn
    monkeypatch.setattr(
        service.base.renderer,
        "bridge_to_next_turn",
        lambda *args, **options: seen.append(args) or bridge(*args, **options),
    )
    start = service.render([{"role": "user", "content": "go"}], None)
    for length in (100, 4000):
        prompt = [300] * length + start
        body = BridgeBody(
            prompt_ids=prompt,
            completion_ids=[300, service.base.stop_token_ids[0]],
            messages=[{"role": "user", "content": "a1=2 a2=. a3=4\nb1=2 b2=. b3=.\nlegal: up"}],
        )
        assert service.bridge(body)["ids"][: len(prompt)] == prompt
    short, long = seen
    assert short == long and len(short[0]) < 100


@pytest.mark.parametrize("escaped", ["\\ud83d", "\\uD83D \\ud83d\\ude00"])
def test_half_a_character_in_arguments_of_the_history_is_no_failure(service, escaped):
    """Templates read arguments and write them again; what JSON may escape is not always text."""

    def history(arguments: str) -> list[dict]:
        calls = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": arguments}}]
        return [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": calls}]

    whole = (
        escaped.replace("\\ud83d\\ude00", "\U0001f600")
        .replace("\\uD83D", "\ufffd")
        .replace("\\ud83d", "\ufffd")
    )
    expected = service.render(history(f'{{"cell": "{whole}"}}'), None)
    assert service.render(history(f'{{"cell": "{escaped}"}}'), None) == expected
    # What is no JSON stays the text that it is, or is refused: never a failure.
    try:
        service.render(history(f'{{"cell": "{escaped}'), None)
    except HoneWorkerError as error:
        assert error.status == 400
