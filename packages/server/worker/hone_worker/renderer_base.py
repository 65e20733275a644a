"""A base's tokenizer and renderer, found by name, and what the server must know of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renderers import create_renderer
from renderers.base import MODEL_RENDERER_MAP, RENDERER_REGISTRY, _populate_registry
from renderers.configs import DefaultRendererConfig, config_from_name
from renderers.reasoning import prompt_ends_in_reasoning
from transformers import AutoTokenizer
from transformers.utils.hub import cached_file, is_offline_mode

from hone_worker.errors import HoneWorkerError
from hone_worker.lean_renderer import LeanRenderer, LeanRendererConfig
from hone_worker.renderer_tokens import TokenBytes

# Renderers whose tool calls and reasoning are plain text in what the engine streams. Of any other we
# know only that its marks may be hidden special tokens, so nothing may be streamed before it is parsed.
TEXT_MARKERS = {
    name: (["<tool_call>"], ["<think>"])
    for name in ("lean", "qwen3", "prime-qwen3", "qwen3-vl", "qwen3.5", "qwen3.6", "qwen3.8")
}
HOLD_ALL = [""]
# The same families read no more of a prompt than how its last message begins.
PROMPT_TAIL = 64


@dataclass(frozen=True)
class RenderedBase:
    base: str
    name: str
    renderer: Any
    tokenizer: Any
    tokens: TokenBytes
    stop_token_ids: list[int]
    bridges: bool
    max_model_len: int
    vocab_size: int
    tool_markers: list[str]
    reasoning_markers: list[str]
    generation_prompt: list[int]  # what every prompt ends with: a parse must know whether it opened a thought
    special_text: dict[int, str]
    prompt_tail: int | None  # a bridge needs only this many of the prompt's last ids; None: all of them


def load(base: str, name: str = "auto", options: dict[str, Any] | None = None) -> RenderedBase:
    config = _json_file(base, "config.json")
    if config is None:
        raise _bad_base(_why_missing(base))
    if name == "auto":
        chosen = _json_file(base, "hone.json") or {}
        name = chosen.get("renderer") or MODEL_RENDERER_MAP.get(base) or "default"
        options = {**(chosen.get("renderer_options") or {}), **(options or {})}
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except Exception as error:
        raise _bad_base(f"The tokenizer of {base!r} does not load: {error}") from error
    renderer = _create(tokenizer, name, options or {})
    tool_markers, reasoning_markers = _markers(name, renderer)
    generation_prompt = _generation_prompt(renderer)
    stops = _stops(base, renderer)
    if prompt_ends_in_reasoning(tokenizer, generation_prompt, stop_ids=set(stops)):
        reasoning_markers = HOLD_ALL
    text_config = config.get("text_config") or config
    added = tokenizer.added_tokens_decoder
    return RenderedBase(
        base=base,
        name=name,
        renderer=renderer,
        tokenizer=tokenizer,
        tokens=TokenBytes(tokenizer),
        stop_token_ids=stops,
        bridges=name != "default",
        max_model_len=int(text_config.get("max_position_embeddings") or tokenizer.model_max_length),
        vocab_size=max(int(text_config.get("vocab_size") or 0), len(tokenizer)),
        tool_markers=tool_markers,
        reasoning_markers=reasoning_markers,
        generation_prompt=generation_prompt,
        special_text={int(i): token.content for i, token in added.items() if token.special},
        prompt_tail=PROMPT_TAIL if name in TEXT_MARKERS else None,
    )


def _create(tokenizer: Any, name: str, options: dict[str, Any]) -> Any:
    _populate_registry()
    known = sorted({*RENDERER_REGISTRY, "lean"})
    if name not in known:
        # "custom" is among the unknown ones on purpose: a model's folder must not name code to run.
        raise HoneWorkerError(
            f"There is no renderer {name!r}. Choose one of auto, {', '.join(known)}.",
            code="unknown_renderer",
            param="renderer",
        )
    try:
        if name == "lean":
            return LeanRenderer(tokenizer, LeanRendererConfig(**options))
        if name == "default":
            return create_renderer(
                tokenizer, DefaultRendererConfig(**{**_default_parsers(tokenizer), **options})
            )
        plain = config_from_name(name)
        # Templates drop old thoughts when a new question comes; then a turn no longer begins with what was
        # sampled before it. A thought that was sampled stays, unless the operator chooses otherwise.
        if not options and "thinking_retention" in type(plain).model_fields:
            try:
                return create_renderer(tokenizer, type(plain)(thinking_retention="all"))
            except (ValueError, NotImplementedError):
                return create_renderer(tokenizer, plain)
        return create_renderer(tokenizer, type(plain)(**{"thinking_retention": "all", **options}))
    except Exception as error:  # a renderer may stumble over a foreign tokenizer in any way
        raise HoneWorkerError(
            f"The renderer {name!r} does not fit this base: {error or type(error).__name__}. Choose another one, or 'default'.",
            code="renderer_mismatch",
            param="renderer",
        ) from error


def _default_parsers(tokenizer: Any) -> dict[str, str]:
    """Parsers for a template that nobody wrote a renderer for, where its text shows the common marks."""
    if not tokenizer.chat_template:
        raise ValueError("it has no chat template")
    template = str(tokenizer.chat_template)
    found = {}
    if "<tool_call>" in template and tokenizer.convert_tokens_to_ids("<tool_call>") != tokenizer.unk_token_id:
        found["tool_parser"] = "qwen3"
    if "<think>" in template:
        found["reasoning_parser"] = "think"
    return found


def _markers(name: str, renderer: Any) -> tuple[list[str], list[str]]:
    if name in TEXT_MARKERS:
        return TEXT_MARKERS[name]
    if name != "default":
        return HOLD_ALL, HOLD_ALL
    parser = renderer.config.tool_parser
    tools = [] if parser is None else ["<tool_call>"] if parser == "qwen3" else HOLD_ALL
    return tools, ["<think>"] if renderer.config.reasoning_parser in (None, "think") else HOLD_ALL


def _generation_prompt(renderer: Any) -> list[int]:
    messages = [{"role": "user", "content": "x"}]
    whole = list(renderer.render_ids(messages, add_generation_prompt=True))
    bare = list(renderer.render_ids(messages, add_generation_prompt=False))
    return whole[len(bare) :] if whole[: len(bare)] == bare else whole


def _stops(base: str, renderer: Any) -> list[int]:
    """The renderer's own and the generation config's: the tokenizer's EOS alone is wrong for some models."""
    ends = (_json_file(base, "generation_config.json") or {}).get("eos_token_id") or []
    ends = ends if isinstance(ends, list) else [ends]
    stops = list(dict.fromkeys([*renderer.get_stop_token_ids(), *ends]))
    if not stops:
        raise _bad_base(
            f"{base!r} names no token that ends an answer. Set eos_token_id in generation_config.json"
        )
    return stops


def _why_missing(base: str) -> str:
    if Path(base).is_dir():
        return f"{base!r} is not a model: there is no config.json in it"
    if is_offline_mode():
        return (
            f"The base {base!r} is not in this machine's hub cache, and HF_HUB_OFFLINE forbids to fetch it. "
            "Unset it, or give the folder of a copy"
        )
    return (
        f"The base {base!r} is not in this machine's hub cache and could not be fetched. Check the id, the "
        "network and, for a private or gated model, HF_TOKEN; or give the folder of a copy"
    )


def _json_file(base: str, name: str) -> dict[str, Any] | None:
    path = (
        cached_file(
            base,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if not Path(base).is_dir()
        else Path(base) / name
    )
    if path is None or not Path(path).is_file():
        return None
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _bad_base(f"{name} of {base!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _bad_base(f"{name} of {base!r} is not a JSON object")
    return value


def _bad_base(message: str) -> HoneWorkerError:
    return HoneWorkerError(message, code="bad_base", param="base")
