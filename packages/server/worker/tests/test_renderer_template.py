"""Arguments of a chat template: each is known by the renderer or refused, and changes all that depends on it."""

from pathlib import Path

import pytest
from renderer_bases import save_base, template

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import load
from hone_worker.renderer import MOST_VIEWS, BridgeBody, Service

QUESTION = {"role": "user", "content": "Where is the two?"}
READS = (
    "{%- set tone = tone if tone is defined else 'plain' %}{% set local = 1 %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ tone }}{{ local }}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
OFF = {"enable_thinking": False}


def text(service: Service, ids: list[int]) -> str:
    return service.base.tokenizer.decode(ids)


@pytest.mark.parametrize(("written", "name"), [("qwen3", "qwen3"), (READS, "default")])
def test_a_model_s_arguments_change_prompt_bridge_and_parse(tmp_path: Path, written: str, name: str):
    chat_template = template(written) if written == "qwen3" else written
    service = Service(load(save_base(tmp_path / "b", chat_template, model_type="qwen3")))
    assert service.base.name == name
    own = service.view(OFF)
    before = service.render([QUESTION], None)
    prompt = own.render([QUESTION], None)
    assert text(own, prompt) == text(service, before) + "<think>\n\n</think>\n\n"
    assert own.base.generation_prompt != service.base.generation_prompt
    assert service.render([QUESTION], None) == before
    # The renderer's own generation prompt opens the next turn too.
    if own.base.bridges:
        said = [*own.base.tokenizer.encode("a1", add_special_tokens=False), own.base.stop_token_ids[0]]
        body = BridgeBody(prompt_ids=prompt, completion_ids=said, messages=[QUESTION])
        bridged = own.bridge(body)["ids"]
        assert bridged[: len(prompt) + len(said)] == prompt + said
        assert text(own, bridged).endswith("<think>\n\n</think>\n\n")
        assert own.parse(said, None)["content"] == "a1"
    assert service.view({}) is service
    assert service.view(OFF) is own


@pytest.mark.parametrize(
    ("written", "kwargs", "param"),
    [
        ("qwen3", {"enable_thinkin": False}, "chat_template_kwargs.enable_thinkin"),
        ("qwen3", {"enable_thinking": "sometimes"}, "chat_template_kwargs"),
        (READS, {"enable_thinking": False, "think": 1}, "chat_template_kwargs.think"),
        (READS, {"messages": "x"}, "chat_template_kwargs.messages"),
        (READS, {"add_generation_prompt": False}, "chat_template_kwargs.add_generation_prompt"),
        (READS, {"local": 2}, "chat_template_kwargs.local"),
        (READS, {"tool_parser": "qwen3"}, "chat_template_kwargs.tool_parser"),
    ],
)
def test_what_the_template_does_not_read_is_refused_by_name(
    tmp_path: Path, written: str, kwargs: dict, param: str
):
    chat_template = template(written) if written == "qwen3" else written
    service = Service(load(save_base(tmp_path / "b", chat_template, model_type="qwen3")))
    with pytest.raises(HoneWorkerError) as refused:
        service.view(kwargs)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert (
        param.removeprefix("chat_template_kwargs.") in refused.value.message
        or param == "chat_template_kwargs"
    )


def test_only_some_are_kept(tmp_path: Path):
    service = Service(load(save_base(tmp_path / "b", READS)))
    for i in range(MOST_VIEWS + 2):
        assert text(service, service.view({"tone": f"t{i}"}).render([QUESTION], None)).endswith(f"t{i}1")
    assert len(service._views) == MOST_VIEWS
