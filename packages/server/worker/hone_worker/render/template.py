"""The same base with other arguments of its chat template, and which arguments it knows."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from jinja2 import meta
from renderers.configs import DefaultRendererConfig, config_from_name
from transformers.utils.chat_template_utils import _compile_jinja_template

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import RenderedBase, made_with


def with_template(base: RenderedBase, kwargs: dict[str, Any]) -> RenderedBase:
    """The base with these arguments on top of those that it has. Raises an error for one that it does not know."""
    known = _known(base)
    for name in kwargs:
        if name not in known:
            raise _refused(
                f"The renderer {base.name!r} of {base.base!r} does not know {name!r}. It knows "
                f"{', '.join(sorted(known)) or 'none'}.",
                f"chat_template_kwargs.{name}",
            )
    try:
        made = made_with(base.base, base.tokenizer, base.plain, base.name, {**base.options, **kwargs})
    except Exception as error:  # a template may stumble over a value in any way
        raise _refused(
            f"{base.base!r} cannot be rendered with {kwargs!r}: {error or type(error).__name__}",
            "chat_template_kwargs",
        ) from error
    return replace(base, **made)


def _known(base: RenderedBase) -> set[str]:
    if base.name == "lean":
        return set()
    if base.name != "default":
        return {*type(config_from_name(base.name)).template_field_names(), "thinking_retention"}
    template = base.tokenizer.chat_template
    read: set[str] = set()
    for source in template.values() if isinstance(template, dict) else [template]:
        environment = _compile_jinja_template(source).environment
        read |= meta.find_undeclared_variables(environment.parse(source)) - set(environment.globals)
    # Conversation and tokenizer set these; an argument must not.
    own = {"messages", "tools", "documents", *DefaultRendererConfig.model_fields}
    own |= set(inspect.signature(base.tokenizer.apply_chat_template).parameters)
    own |= set(base.tokenizer.special_tokens_map)
    return read - own - {name for name in read if name.endswith(("_token", "_tokens"))}


def _refused(message: str, param: str) -> HoneWorkerError:
    return HoneWorkerError(message, code="unknown_template_kwarg", param=param)
