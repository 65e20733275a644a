"""A template that nobody wrote a renderer for: where it goes on where it ended, turns extend what was sampled."""

import random
from pathlib import Path

import pytest
from renderer_bases import CHATML, LLAMA3, SMOLLM2, save_base, template

from hone_worker.render.base import load
from hone_worker.render.family import CALLED, QUESTION, RESULT, TOOL
from hone_worker.renderer import BridgeBody, Service

GEMMA = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
BRIDGING = {
    "smollm2": (SMOLLM2, {"marks": []}),
    "smollm2 with marks": (SMOLLM2, {}),
    "llama3": (
        template("llama3"),
        {"special": LLAMA3, "marks": [], "eos": "<|eot_id|>", "bos": "<|begin_of_text|>"},
    ),
    "gemma": (
        template("gemma"),
        {"special": GEMMA, "marks": [], "eos": "<end_of_turn>", "bos": "<bos>", "model_type": "gemma"},
    ),
    "qwen2.5": (template("qwen2_5"), {"model_type": "qwen2"}),
}


@pytest.fixture(scope="module", params=BRIDGING)
def service(request, tmp_path_factory: pytest.TempPathFactory) -> Service:
    written, rest = BRIDGING[request.param]
    return Service(load(save_base(tmp_path_factory.mktemp("base"), written, **rest)))


def turn(messages: list[dict], answer: dict, new: list[dict]) -> list[dict]:
    return [*messages, answer, *new]


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("opening", [[QUESTION], [{"role": "system", "content": "Be brief."}, QUESTION]])
def test_a_bridge_gives_what_a_full_rendering_gives(service: Service, opening: list[dict], tools):
    assert service.info()["renderer"] == "default" and service.info()["bridges"] is True
    if "System role" in service.base.tokenizer.chat_template and opening[0]["role"] == "system":
        pytest.skip("a template without a system message")
    encode, decode = service.base.tokenizer.encode, service.base.tokenizer.decode
    messages, prompt = opening, service.render(opening, tools)
    for answer, new in [
        ({"role": "assistant", "content": "left"}, [{"role": "user", "content": "é 日本 <|im_end|>"}]),
        (CALLED, [{**RESULT, "content": "<|im_start|>7"}]),
        ({"role": "assistant", "content": "so {a}"}, [QUESTION]),
    ]:
        # What the policy would have to sample for the two ways to agree.
        whole = decode(service.base.renderer.render_ids([*messages, answer], tools=tools))
        said = whole.removeprefix(decode(prompt)) if whole.startswith(decode(prompt)) else None
        assert said is not None
        completion = encode(said.rstrip("\n"), add_special_tokens=False)
        assert completion[-1] in service.base.stop_token_ids
        body = BridgeBody(prompt_ids=prompt, completion_ids=completion, messages=new, tools=tools)
        bridged = service.bridge(body)["ids"]
        messages = turn(messages, answer, new)
        assert bridged == service.render(messages, tools)
        cut = BridgeBody(prompt_ids=prompt, completion_ids=completion[:-1], messages=new, tools=tools)
        assert service.bridge(cut)["ids"] == bridged  # the close is prompt then
        prompt = bridged


def test_what_was_sampled_is_never_spelled_anew(service: Service):
    rng = random.Random(5)
    prompt = service.render([QUESTION], None)
    for _ in range(30):
        noise = [rng.randrange(256) for _ in range(rng.randrange(1, 9))]
        completion = [*noise, *rng.choice([[], [service.base.stop_token_ids[0]]])]
        ids = service.bridge(BridgeBody(prompt_ids=prompt, completion_ids=completion, messages=[QUESTION]))[
            "ids"
        ]
        assert ids[: len(prompt) + len(completion)] == prompt + completion
        assert ids[-len(service.base.generation_prompt) :] == service.base.generation_prompt


REWRITES = {
    # The last answer is written otherwise than an earlier one.
    "an empty thought": (template("qwen3").replace("# Tools", "# Instruments"), {"model_type": "qwen3"}),
    "tools in the last question": (
        "{% for m in messages %}{% if loop.last and tools %}[{{ tools | tojson }}]{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        {},
    ),
    "a count of turns": (
        "{% for m in messages %}<|im_start|>{{ loop.index }}{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        {},
    ),
    "only what came last": (
        "{% for m in messages[-2:] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        {},
    ),
    "no end of an answer": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        {"special": CHATML},
    ),
}


@pytest.mark.parametrize("case", REWRITES)
def test_a_template_that_goes_back_is_rendered_in_full(tmp_path: Path, case: str):
    written, rest = REWRITES[case]
    service = Service(load(save_base(tmp_path / "b", written, **rest)))
    assert service.info()["renderer"] == "default" and service.info()["bridges"] is False
    body = BridgeBody(prompt_ids=[1], completion_ids=[2], messages=[QUESTION])
    assert service.bridge(body)["ids"] is None
