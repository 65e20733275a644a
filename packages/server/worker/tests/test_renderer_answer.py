"""An answer's ids as the model would have sampled them after its prompt, for several templates."""

from pathlib import Path

import pytest
from renderer_bases import SMOLLM2, save_base, template

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import load
from hone_worker.renderer import BridgeBody, Service

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is here?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "a hat"},
    {"role": "assistant", "content": "A hat <|im_end|> it is."},
]
# Opens a thought that a given answer has not, and ends a conversation with nothing.
OPENS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if not loop.last %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|>\n<|im_start|>assistant\n{{ start | default('') }}{% endif %}"
)


def service(tmp_path: Path, written: str, **options) -> Service:
    return Service(load(save_base(tmp_path / "b", written, **options)))


def text(own: Service, ids: list[int]) -> str:
    return own.base.tokenizer.decode(ids)


@pytest.mark.parametrize(("written", "model_type"), [("qwen3", "qwen3"), (SMOLLM2, "llama")])
def test_an_answer_follows_its_prompt_and_is_read_back_as_it_was_given(tmp_path, written, model_type):
    own = service(tmp_path, template(written) if written == "qwen3" else written, model_type=model_type)
    for at in (2, 4):
        answer = own.answer(MESSAGES[: at + 1], TOOLS)
        assert answer[-1] in own.base.stop_token_ids
        assert not set(answer[:-1]) & set(own.base.stop_token_ids)
        # What the text spells stays text: the answer goes on behind it.
        assert MESSAGES[at]["content"] in text(own, answer)
        calls = [(call["name"], call["arguments"]) for call in own.parse(answer, TOOLS)["tool_calls"]]
        assert calls == ([("look", '{"a": 1}')] if at == 2 else [])
        # The next prompt goes on from these very ids.
        if at == 2:
            prompt = own.render(MESSAGES[:2], TOOLS)
            body = BridgeBody(prompt_ids=prompt, completion_ids=answer, messages=MESSAGES[3:4], tools=TOOLS)
            bridged = own.bridge(body)
            assert bridged["ids"][: len(prompt) + len(answer)] == prompt + answer


def test_an_answer_without_an_end_of_its_own_ends_with_a_stop_token(tmp_path):
    own = service(tmp_path, OPENS)
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yes"}]
    assert text(own, own.answer(messages, None)) == "yes<|im_end|>"


def test_an_answer_that_the_model_could_not_have_begun_is_refused(tmp_path):
    own = service(tmp_path, OPENS).view({"start": "<think>"})
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yes"}]
    with pytest.raises(HoneWorkerError, match="could not have sampled it") as caught:
        own.answer(messages, None)
    assert (caught.value.status, caught.value.param) == (400, "messages[1]")
    thought = [messages[0], {"role": "assistant", "content": "<think>hm</think>yes"}]
    assert text(own, own.answer(thought, None)) == "hm</think>yes<|im_end|>"


# Writes one more stop token behind a conversation, as Phi-3's template does.
ENDS_TWICE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|im_end|>{% endif %}"
)
# Ends no turn: the mark of the next turn does, as in GLM-4.5.
NEXT_TURN_ENDS = (
    "{% for message in messages %}{{ '<|im_end|>' if message.role == 'user' else '<|im_start|>' }}"
    "{{ message.content }}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@pytest.mark.parametrize("written", [ENDS_TWICE, NEXT_TURN_ENDS])
def test_an_answer_ends_with_the_one_token_that_a_sampled_one_ends_with(tmp_path, written):
    own = service(tmp_path, written)
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yes"}]
    assert text(own, own.answer(messages, None)) == "yes<|im_end|>"


def test_an_answer_of_two_pieces_is_refused(tmp_path):
    pieces = ENDS_TWICE.replace("{% else %}<|im_end|>", "{% else %}more")
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yes"}]
    with pytest.raises(HoneWorkerError, match="more' behind the stop token"):
        service(tmp_path, pieces).answer(messages, None)


@pytest.mark.parametrize("messages", [MESSAGES[:2], [MESSAGES[4]]])
def test_only_an_answer_to_something_is_one(tmp_path, messages):
    with pytest.raises(HoneWorkerError, match="an assistant message that follows others"):
        service(tmp_path, SMOLLM2).answer(messages, None)
