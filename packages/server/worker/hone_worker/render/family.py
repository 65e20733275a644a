"""Which renderer a base needs, by what it is and not by what its folder is called.

A hand-written renderer is taken where it gives, token for token, what the base's own chat template gives: a clone,
a fine-tune and a merged export have the template of the model that they came from, whatever their name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from renderers.base import MODEL_RENDERER_MAP

log = logging.getLogger("hone_worker.renderer")

# `model_type` of config.json → renderers of its models, the likeliest first.
FAMILIES = {
    "qwen3": ["qwen3", "prime-qwen3"],
    "qwen3_moe": ["qwen3", "prime-qwen3"],
    "qwen3_next": ["qwen3"],
    "qwen3_vl": ["qwen3-vl"],
    "qwen3_vl_moe": ["qwen3-vl"],
    "qwen3_5": ["qwen3.5", "qwen3.6", "qwen3.8"],
    "qwen3_5_moe": ["qwen3.5", "qwen3.6", "qwen3.8"],
    "llama": ["llama-3", "deepseek-r1"],
    "qwen2": ["qwen3", "deepseek-r1"],
    "glm4_moe": ["glm-4.5", "glm-5", "glm-5.1", "glm-5.3"],
    "glm4_moe_lite": ["glm-5", "glm-4.5"],
    "glm_moe_dsa": ["glm-5", "glm-5.1", "glm-5.3"],
    "deepseek_v3": ["deepseek-v3", "deepseek-r1", "kimi-k2", "kimi-k2.5"],
    "kimi_k2": ["kimi-k2", "kimi-k2.5"],
    "minimax_m2": ["minimax-m2"],
    "nemotron_h": ["nemotron-3", "nemotron-3-ultra", "nemotron-3.5"],
    "gemma4": ["gemma4"],
    "laguna": ["laguna-xs.2", "laguna-m.1", "laguna-xs-2.1", "laguna-s-2.1"],
    "hy_v3": ["hy3"],
}
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"cell": "a1", "deep": true}'},
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at a cell.",
        "parameters": {
            "type": "object",
            "properties": {"cell": {"type": "string"}, "deep": {"type": "boolean"}},
        },
    },
}
QUESTION = {"role": "user", "content": "Where is the two?"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "name": "look", "content": "nothing but Xq7 here"}
PROBES: list[tuple[list[Any], list[Any] | None]] = [
    ([{"role": "system", "content": "Be brief."}, QUESTION], None),
    ([QUESTION], [TOOL]),
    ([QUESTION, {**CALLED, "content": "I look."}, RESULT], [TOOL, TOOL]),
]
# With thinking off, hand-written renderers keep the empty thoughts of earlier answers, and templates drop them.
PROBE_WITH_THINKING: tuple[list[Any], None] = (
    [QUESTION, {"role": "assistant", "content": "At a1."}, QUESTION],
    None,
)


def family_of(
    base: str, config: dict[str, Any], create: Callable[[str, dict[str, Any]], Any], tokenizer: Any
) -> tuple[str, dict[str, Any]] | None:
    """The renderer's name and options. `create` raises an error if a renderer does not fit the tokenizer."""
    known = MODEL_RENDERER_MAP.get(base)
    if known:
        return known, {}
    if not tokenizer.chat_template:
        return None
    for name in FAMILIES.get(str(config.get("model_type")), []):
        # Small and large models of a family differ in whether they think without being asked.
        for options in ({}, {"enable_thinking": False}, {"enable_thinking": True}):
            try:
                probes = PROBES if options.get("enable_thinking") is False else [*PROBES, PROBE_WITH_THINKING]
                if _gives_the_same(create(name, options), tokenizer, probes):
                    return name, options
            except Exception as error:  # it may stumble over a foreign tokenizer in any way
                log.debug("the renderer %s does not fit: %s", name, error)
    return None


def _gives_the_same(renderer: Any, tokenizer: Any, probes: list[tuple[list[Any], list[Any] | None]]) -> bool:
    return all(
        list(renderer.render_ids(messages, tools=tools, add_generation_prompt=True))
        in _by_template(tokenizer, messages, tools)
        for messages, tools in probes
    )


def _by_template(tokenizer: Any, messages: list[Any], tools: list[Any] | None) -> list[list[int]]:
    """Templates take arguments as JSON, as an object, or both; one that tells the day would tell another tomorrow."""
    made: list[list[int]] = []
    for told in (_with_objects(messages), messages):
        try:
            made.append(
                list(
                    tokenizer.apply_chat_template(
                        told,
                        tools=tools,
                        add_generation_prompt=True,
                        tokenize=True,
                        return_dict=False,
                        date_string="26 Jul 2024",
                    )
                )
            )
        except Exception as error:
            log.debug("the template refuses a probe: %s", error)
    return made


def _with_objects(messages: list[Any]) -> list[Any]:
    function = {**CALL["function"], "arguments": json.loads(CALL["function"]["arguments"])}
    return [
        {**m, "tool_calls": [{**CALL, "function": function}]} if "tool_calls" in m else m for m in messages
    ]


def carries_tools(renderer: Any, tokenizer: Any, generation_prompt: list[int], *, reads: bool = True) -> bool:
    """Whether tools and results reach the prompt and, with `reads`, whether a call is read back as it is written."""

    def ids(messages: list[Any], tools: list[Any] | None = None, *, end: bool = True) -> list[int]:
        return list(renderer.render_ids(messages, tools=tools, add_generation_prompt=end))

    def text(made: list[int]) -> str:
        return tokenizer.decode(made, skip_special_tokens=False)

    try:
        asked = ids([QUESTION], [TOOL])
        if "Look at a cell." not in text(asked):
            return False
        if "Xq7" not in text(ids([QUESTION, CALLED, RESULT], [TOOL])):
            return False
        if not reads:
            return True
        history = ids([QUESTION, CALLED], [TOOL], end=False)
        # What a template writes of an answer may not begin as it prompts for one (with an open thought).
        start = _common(asked, history)
        prompt = generation_prompt if start == len(asked) else None
        read = renderer.parse_response(history[start:], tools=[TOOL], prompt_ids=prompt)
        return [(call.name, call.arguments) for call in read.tool_calls] == [
            ("look", {"cell": "a1", "deep": True})
        ]
    except Exception as error:
        log.debug("a probe of tools failed: %s", error)
        return False


def has_system(renderer: Any, tokenizer: Any) -> bool:
    try:
        messages = [{"role": "system", "content": "Xq7"}, QUESTION]
        return "Xq7" in tokenizer.decode(renderer.render_ids(messages, add_generation_prompt=True))
    except Exception:
        return False


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
