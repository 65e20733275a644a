"""A base is known by its template and tokens, whatever its folder is called; and what it lacks of tools is given."""

import json
from pathlib import Path

import pytest
from renderer_bases import CHATML, GLM, GLM_MARKS, LLAMA3, SMOLLM2, save_base, template

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import load
from hone_worker.render.family import CALL, CALLED, QUESTION, RESULT, TOOL
from hone_worker.renderer import BridgeBody, Service

VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
FAMILIES = {
    "qwen3": ("qwen3", {"model_type": "qwen3"}),
    "qwen3_instruct_2507": ("qwen3", {"model_type": "qwen3_moe"}),
    "qwen3_5_nothink": ("qwen3.5", {"model_type": "qwen3_5", "special": [*CHATML, *VISION]}),
    "qwen3_6": ("qwen3.6", {"model_type": "qwen3_5_moe", "special": [*CHATML, *VISION]}),
    "llama3_2": (
        "llama-3",
        {"special": LLAMA3, "marks": [], "eos": "<|eot_id|>", "bos": "<|begin_of_text|>"},
    ),
    "glm4moe": (
        "glm-4.5",
        {"special": GLM, "marks": GLM_MARKS, "model_type": "glm4_moe", "eos": "<|user|>"},
    ),
}


@pytest.mark.parametrize("written", FAMILIES)
def test_a_clone_in_any_folder_gets_its_family_s_renderer(tmp_path: Path, written: str):
    name, rest = FAMILIES[written]
    service = Service(load(save_base(tmp_path / "my model v2", template(written), **rest)))
    info = service.info()
    assert (info["renderer"], info["bridges"], info["tools"]) == (name, True, "template")
    assert info["plain_texts"] is True
    prompt = service.render([QUESTION], [TOOL])
    new = [{"role": "user", "content": "and then?"}]
    said = service.base.tokenizer.encode("<think>so</think>left", add_special_tokens=False)
    body = BridgeBody(prompt_ids=prompt, completion_ids=[*said, info["stop_token_ids"][0]], messages=new)
    assert service.bridge(body)["ids"] is not None


def test_another_template_is_not_taken_for_its_family_s(tmp_path: Path):
    changed = template("qwen3").replace("# Tools", "# Instruments")
    base = load(save_base(tmp_path / "b", changed, model_type="qwen3"))
    assert (base.name, base.tools) == ("default", "template")
    # What the operator says wins.
    assert load(save_base(tmp_path / "c", changed, model_type="qwen3"), "qwen3").name == "qwen3"
    (tmp_path / "b" / "hone.json").write_text(json.dumps({"renderer": "qwen3"}))
    assert load(str(tmp_path / "b")).name == "qwen3"


def test_no_template_of_the_family_s_tokens_is_refused_in_words(tmp_path: Path):
    folder = save_base(tmp_path / "b", "")
    with pytest.raises(HoneWorkerError, match="no chat template"):
        load(folder)


TOOLLESS = {
    "smollm2": (SMOLLM2, {"marks": []}),
    "smollm2 with marks": (SMOLLM2, {}),
    "llama3": (
        template("llama3"),
        {"special": LLAMA3, "marks": [], "eos": "<|eot_id|>", "bos": "<|begin_of_text|>"},
    ),
    # No message of role system either.
    "gemma": (
        template("gemma"),
        {
            "special": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
            "marks": [],
            "eos": "<eos>",
            "bos": "<bos>",
            "model_type": "gemma",
        },
    ),
    # Tools in the prompt, and calls that nothing here reads.
    "lfm2": (template("lfm2"), {"bos": "<|endoftext|>"}),
}


@pytest.fixture(params=TOOLLESS)
def toolless(request, tmp_path: Path) -> Service:
    written, rest = TOOLLESS[request.param]
    return Service(load(save_base(tmp_path / "b", written, **rest)))


def test_tools_reach_a_base_whose_template_has_none(toolless: Service):
    assert toolless.info()["tools"] == "convention"
    decode = toolless.base.tokenizer.decode
    prompt = decode(toolless.render([QUESTION], [TOOL]))
    assert json.dumps(TOOL) in prompt and "<tool_call>" in prompt
    assert decode(toolless.render([QUESTION], None)).count("<tool_call>") == 0
    history = decode(
        toolless.render([QUESTION, {**CALLED, "content": "I look."}, RESULT, CALLED, RESULT], [TOOL])
    )
    call = '<tool_call>\n{"name": "look", "arguments": {"cell": "a1", "deep": true}}\n</tool_call>'
    assert "I look.\n" + call in history
    assert history.count(call) == 2
    assert history.count(f"<tool_response>\n{RESULT['content']}\n</tool_response>") == 2


def test_an_agent_s_system_message_stays(toolless: Service):
    told = [{"role": "system", "content": "Be brief."}, QUESTION]
    if "System role" in toolless.base.tokenizer.chat_template:
        with pytest.raises(HoneWorkerError, match="System role not supported"):
            toolless.render(told, [TOOL])
        return
    prompt = toolless.base.tokenizer.decode(toolless.render(told, [TOOL]))
    assert "Be brief." in prompt and json.dumps(TOOL) in prompt


@pytest.mark.parametrize("content", ["", "I look.", "é 日本 {}"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("thought", [None, "hm, <b> & so"])
def test_what_is_rendered_is_read_back(toolless: Service, content: str, count: int, thought: str | None):
    arguments = ['{"cell": "é \\"x\\"\\n"}', '{"a": {"b": [1, 2.5, null, "}"]}}', "{}"][:count]
    calls = [{**CALL, "function": {"name": f"look{i}", "arguments": a}} for i, a in enumerate(arguments)]
    ids = sampled_as(toolless, {"role": "assistant", "content": content, "tool_calls": calls})
    if thought is not None:
        ids = toolless.base.tokenizer.encode(f"<think>{thought}</think>", add_special_tokens=False) + ids
    parsed = toolless.parse(ids, [TOOL])
    assert parsed["content"] == (content or None)
    assert parsed["reasoning"] == thought
    assert [c["name"] for c in parsed["tool_calls"]] == [f"look{i}" for i in range(count)]
    read = [json.loads(c["arguments"]) for c in parsed["tool_calls"]]
    assert read == [json.loads(a) for a in arguments]
    # Where no tool was offered, the same answer is text.
    said = toolless.parse(ids, None)
    assert said["tool_calls"] == [] and said["content"].count("<tool_call>") == count


def sampled_as(service: Service, message: dict) -> list[int]:
    """The ids that a policy would sample to give this message."""
    before = service.render([QUESTION], [TOOL])
    whole = service.base.renderer.render_ids([QUESTION, message], tools=[TOOL])
    assert whole[: len(before)] == before
    return whole[len(before) :]


def test_a_base_that_can_show_no_tools_refuses_them(tmp_path: Path):
    # Every message becomes the same word.
    deaf = "{% for m in messages %}<|im_start|>x<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    service = Service(load(save_base(tmp_path / "b", deaf)))
    assert service.info()["tools"] == "none"
    assert service.render([QUESTION], None)
    for messages, tools in [([QUESTION], [TOOL]), ([QUESTION, CALLED], None), ([QUESTION, RESULT], None)]:
        with pytest.raises(HoneWorkerError, match="no place for tools") as refused:
            service.render(messages, tools)
        assert refused.value.status == 400
