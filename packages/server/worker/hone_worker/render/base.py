"""A base's tokenizer and renderer, found by name, and what the server must know of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from renderers import create_renderer
from renderers.base import RENDERER_REGISTRY, _populate_registry
from renderers.configs import DefaultRendererConfig, config_from_name
from renderers.reasoning import prompt_ends_in_reasoning
from transformers import AutoTokenizer
from transformers.utils.hub import cached_file, is_offline_mode

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.call_grammar import CallForm, call_form
from hone_worker.render.control_tokens import MARK, MarkedTokenizer, PlainText, plain_text
from hone_worker.render.family import carries_tools, family_of, has_system
from hone_worker.render.lean import LeanRenderer, LeanRendererConfig
from hone_worker.render.template_bridge import BridgingTemplate, bridging
from hone_worker.render.tokens import TokenBytes, longest_token
from hone_worker.render.tool_convention import ToolConvention

# Renderers whose tool calls and reasoning are plain text in what the engine streams. The marks of others may
# be hidden special tokens, so nothing of theirs may be streamed before it is parsed.
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
    options: dict[str, Any]  # the renderer's
    renderer: Any
    tokenizer: Any
    tokens: TokenBytes
    stop_token_ids: list[int]
    bridges: bool
    max_model_len: int
    vocab_size: int  # ids that the model has an embedding of: a tokenizer may have more, or fewer
    longest_token: int | None  # no token stands for more characters of a text; None: not known
    tool_markers: list[str]
    reasoning_markers: list[str]
    generation_prompt: list[int]  # what every prompt ends with: a parse must know whether it opened a thought
    special_text: dict[int, str]
    added_text: dict[int, str]
    call_marks_are_text: bool
    plain: PlainText | None
    tools: Literal["template", "convention", "none"]
    #: Whether what a text spells stays text. In the others a control token in a text is that token.
    plain_texts: bool
    calls: CallForm | None  # how it writes calls; None: in a way that no grammar is made for
    prompt_tail: int | None  # a bridge needs only this many of the prompt's last ids; None: all of them


def load(base: str, name: str = "auto", options: dict[str, Any] | None = None) -> RenderedBase:
    config = _json_file(base, "config.json")
    if config is None:
        raise _bad_base(_why_missing(base))
    if name == "auto":
        chosen = _json_file(base, "hone.json") or {}
        name = chosen.get("renderer") or "auto"
        options = {**(chosen.get("renderer_options") or {}), **(options or {})}
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except Exception as error:
        raise _bad_base(f"The tokenizer of {base!r} does not load: {error}") from error
    plain = plain_text(tokenizer)
    if name == "auto":
        name, found = _recognised(base, config, tokenizer)
        options = {**found, **(options or {})}
    rendering = made_with(base, tokenizer, plain, name, options or {})
    text_config = config.get("text_config") or config
    added = tokenizer.added_tokens_decoder
    return RenderedBase(
        base=base,
        name=name,
        tokenizer=tokenizer,
        tokens=TokenBytes(tokenizer),
        max_model_len=int(text_config.get("max_position_embeddings") or tokenizer.model_max_length),
        longest_token=longest_token(tokenizer),
        vocab_size=int(text_config.get("vocab_size") or len(tokenizer)),
        special_text={int(i): token.content for i, token in added.items() if token.special},
        added_text={int(i): token.content for i, token in added.items()},
        call_marks_are_text=name == "default" or name in TEXT_MARKERS,
        plain=plain,
        prompt_tail=PROMPT_TAIL if name in TEXT_MARKERS else None,
        **rendering,
    )


def made_with(
    base: str, tokenizer: Any, plain: PlainText | None, name: str, options: dict[str, Any]
) -> dict[str, Any]:
    """The renderer, and all fields of a rendered base that may differ with the renderer's options."""
    seen = tokenizer if name == "lean" else MarkedTokenizer(tokenizer, plain)
    renderer = _create(seen, name, options)
    generation_prompt = _generation_prompt(renderer)
    tool_markers, reasoning_markers = _markers(name, renderer)
    stops = _stops(base, renderer)
    if name == "default":
        renderer = bridging(renderer, seen, stops)
    bridges = name != "default" or isinstance(renderer, BridgingTemplate)
    renderer, tools = _with_tools(name, renderer, tokenizer, generation_prompt)
    if isinstance(renderer, ToolConvention) and tool_markers != HOLD_ALL:
        tool_markers = ["<tool_call>"]
    if prompt_ends_in_reasoning(tokenizer, generation_prompt, stop_ids=set(stops)):
        reasoning_markers = HOLD_ALL
    return {
        "options": options,
        "renderer": renderer,
        "generation_prompt": generation_prompt,
        "stop_token_ids": stops,
        "bridges": bridges,
        "tool_markers": tool_markers,
        "reasoning_markers": reasoning_markers,
        "tools": tools,
        "plain_texts": _plain_texts(name, renderer, tokenizer, plain),
        # Where the prompt itself opens a thought, an answer cannot begin with a call.
        "calls": call_form(renderer, tokenizer)
        if (tool_markers, reasoning_markers) == (["<tool_call>"], ["<think>"])
        else None,
    }


def _recognised(base: str, config: dict[str, Any], tokenizer: Any) -> tuple[str, dict[str, Any]]:
    def create(name: str, options: dict[str, Any]) -> Any:
        return create_renderer(tokenizer, type(config_from_name(name))(**options))

    return family_of(base, config, create, tokenizer) or ("default", {})


def _with_tools(
    name: str, renderer: Any, tokenizer: Any, generation_prompt: list[int]
) -> tuple[Any, Literal["template", "convention", "none"]]:
    """The renderer as it is where it carries tools, else with the convention around it."""
    # A hand-written renderer is known to read what it writes.
    if carries_tools(renderer, tokenizer, generation_prompt, reads=name == "default"):
        return renderer, "template"
    system = has_system(renderer, tokenizer)
    for writes in (False, True):
        around = ToolConvention(renderer, writes=writes, has_system=system)
        if carries_tools(around, tokenizer, generation_prompt):
            return around, "convention" if writes else "template"
    return renderer, "none"


def _plain_texts(name: str, renderer: Any, tokenizer: Any, plain: PlainText | None) -> bool:
    """Tries whether a control token in a text stays text: a renderer may tokenise by means of its own."""
    if name == "lean":
        return True
    if plain is None:
        return False
    innocent = [{"role": "user", "content": "x"}]
    marked = [{"role": "user", "content": plain.mark("".join(sorted(plain.controls)))}]
    controls = {i for i, token in tokenizer.added_tokens_decoder.items() if token.content in plain.controls}
    try:
        before, after = (list(renderer.render_ids(m, add_generation_prompt=True)) for m in (innocent, marked))
    except Exception:
        return False
    return MARK not in tokenizer.decode(after) and [i for i in after if i in controls] == [
        i for i in before if i in controls
    ]


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
        # Templates drop old thoughts when a new question comes, and then a turn no longer begins with what was
        # sampled before it. So a sampled thought stays, unless the operator chooses otherwise.
        if "thinking_retention" not in options:
            try:
                return create_renderer(tokenizer, type(plain)(thinking_retention="all", **options))
            except (ValueError, NotImplementedError):
                pass
        return create_renderer(tokenizer, type(plain)(**options))
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
    """End tokens of renderer and generation config. The tokenizer's EOS alone is wrong for some models."""
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
