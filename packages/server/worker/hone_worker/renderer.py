"""The renderer process: messages to token ids and back. No torch, so that it answers at once while others compute.

python -m hone_worker.renderer --base <folder or hub id> [--renderer auto|lean|qwen3|…|default] [--renderer-options JSON]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections import OrderedDict
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
if __name__ == "__main__":
    # transformers imports torch wherever it finds it: 2 s and 300 MB that no tokenizer needs. With this
    # entry `import torch` fails in this process, and transformers does without. Only as a process of its
    # own: in a test, others share the interpreter.
    sys.modules["torch"] = None  # type: ignore[assignment]
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.long_work import LongWork
from hone_worker.process.service import create_app, environment, health_route, read_body, run_service
from hone_worker.render.base import RenderedBase, load
from hone_worker.render.call_grammar import CLOSE, arguments_of, call_grammar
from hone_worker.render.control_tokens import unmarked
from hone_worker.render.messages import bad, check_messages, check_tools
from hone_worker.render.sampled_answer import read_answer
from hone_worker.render.template import with_template
from hone_worker.schema.schema_process import SchemaChecks

log = logging.getLogger("hone_worker.renderer")
Ids = list[int]
MOST_VIEWS = 16


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _TemplateBody(_Body):
    #: The model's own arguments of the template. They go before those that the server was started with.
    chat_template_kwargs: dict[str, str | int | float | bool] | None = None


class RenderBody(_TemplateBody):
    messages: list[Any]
    tools: list[Any] | None = None
    #: Whether the ids end where an answer begins. Without it they are a conversation that is over.
    generation_prompt: bool = True


class AnswerBody(_TemplateBody):
    #: The last one is the assistant's.
    messages: list[Any]
    tools: list[Any] | None = None


class BridgeBody(_TemplateBody):
    prompt_ids: Ids = Field(min_length=1)
    completion_ids: Ids
    messages: list[Any]
    tools: list[Any] | None = None


class ParseBody(_TemplateBody):
    ids: Ids
    #: The tools that may be called. Without any, a sampled call is text.
    tools: list[Any] | None = None
    #: The text up to the stop string, if one ended the answer.
    visible: str | None = None


class CallsBody(_TemplateBody):
    tools: list[Any] = Field(min_length=1)
    #: One call, not several.
    single: bool
    #: An object of this schema may stand in place of calls.
    final: dict[str, Any] | None = None


class TokensBody(_Body):
    ids: Ids


class EncodeBody(_Body):
    text: str


class SchemaBody(_Body):
    # Named otherwise here: pydantic's own class has a `schema`.
    wanted: dict[str, Any] = Field(alias="schema")


class Service:
    def __init__(self, base: RenderedBase):
        self.base = base
        self.answered = 0
        self.long = LongWork()
        self.schemas = SchemaChecks()
        self._views: OrderedDict[str, Service] = OrderedDict()

    def view(self, kwargs: dict[str, Any] | None) -> Service:
        """The service with these arguments of the template. The last few are kept, because few models differ in them."""
        if not kwargs:
            return self
        key = json.dumps(kwargs, sort_keys=True)
        found = self._views.get(key) or Service(with_template(self.base, kwargs))
        self._views[key] = found
        self._views.move_to_end(key)
        if len(self._views) > MOST_VIEWS:
            self._views.popitem(last=False)
        return found

    def render(self, messages: list[Any], tools: list[Any] | None, *, prompt: bool = True) -> Ids:
        return self._rendered(*self._checked(messages, tools), prompt=prompt)

    def answer(self, messages: list[Any], tools: list[Any] | None) -> Ids:
        """The last message as the model would have sampled it after the prompt of those before it."""
        checked, known = self._checked(messages, tools)
        if len(checked) < 2 or checked[-1]["role"] != "assistant":
            raise bad("messages", "an assistant message that follows others is needed at the end")
        before = self._rendered(checked[:-1], known, prompt=True)
        whole = self._rendered(checked, known, prompt=False)
        if whole[: len(before)] != before:
            raise bad(
                f"messages[{len(checked) - 1}]",
                f"the template of {self.base.base!r} writes this answer in another way than its prompt begins it "
                f"({self.base.tokenizer.decode(before[-8:])!r}), so the model could not have sampled it. "
                "Give a thought as reasoning_content where the prompt opens one, or choose other template arguments",
            )
        ids, stops = whole[len(before) :], set(self.base.stop_token_ids)
        # A sampled answer ends with its first stop token. What the template writes behind it belongs to the next
        # prompt, or to the end of a conversation.
        end = next((at for at, token in enumerate(ids) if token in stops), None)
        if end is None:
            return [*ids, self._stop_after(checked, known, whole)]
        behind = [token for token in ids[end + 1 :] if token not in stops]
        if self.base.tokenizer.decode(behind).strip():
            raise bad(
                f"messages[{len(checked) - 1}]",
                f"the template of {self.base.base!r} writes {self.base.tokenizer.decode(behind)!r} behind the stop "
                "token of this answer, so the model could not have sampled it in one piece. Split the message there",
            )
        return ids[: end + 1]

    def _stop_after(self, checked: list[Any], known: list[Any] | None, whole: Ids) -> int:
        """The token that ends an answer whose template writes no end: some families stop at the next turn's mark."""
        role = {"role": "tool", "tool_call_id": "x"} if checked[-1].get("tool_calls") else {"role": "user"}
        stops = self.base.stop_token_ids
        try:
            longer = self._rendered([*checked, {**role, "content": "x"}], known, prompt=False)
        except HoneWorkerError:
            return stops[0]
        goes_on = len(longer) > len(whole) and longer[: len(whole)] == whole
        return longer[len(whole)] if goes_on and longer[len(whole)] in stops else stops[0]

    def _rendered(self, checked: list[Any], known: list[Any] | None, *, prompt: bool) -> Ids:
        try:
            return list(self.base.renderer.render_ids(checked, tools=known, add_generation_prompt=prompt))
        except Exception as error:
            # A template's own refusal ("roles must alternate") is the caller's to mend.
            raise HoneWorkerError(
                f"The renderer {self.base.name!r} cannot render these messages: {unmarked(str(error))}",
                code="invalid_messages",
                param="messages",
            ) from error

    def _checked(self, messages: list[Any], tools: list[Any] | None) -> tuple[list[Any], list[Any] | None]:
        """Messages and tools as a renderer may see them."""
        checked, known, base = check_messages(messages), check_tools(tools), self.base
        called = any(m["role"] == "tool" or m.get("tool_calls") for m in checked)
        if base.tools == "none" and (known or called):
            raise HoneWorkerError(
                f"The chat template of {base.base!r} has no place for tools, their calls and their results. "
                "Send the request without them, or start the server with another --renderer.",
                code="invalid_messages",
                param="tools" if known else "messages",
            )
        if base.plain is None or not base.plain_texts or base.name == "lean":
            return checked, known  # lean reads every text as plain by itself
        return [base.plain.mark_message(m) for m in checked], base.plain.mark(known)

    def bridge(self, body: BridgeBody) -> dict[str, Any]:
        messages, tools = self._checked(body.messages, body.tools)
        self.check_ids(body.prompt_ids, "prompt_ids")
        self.check_ids(body.completion_ids, "completion_ids")
        if not self.base.bridges:
            return _no_bridge("this base's template does not go on where it ended, so the whole is rendered")
        if any(message["role"] == "assistant" for message in messages):
            return _no_bridge("an assistant message among the new ones was not sampled here")
        # A prompt ends with the generation prompt. If a renderer looks at nothing else, it does not get the rest.
        cut = max(0, len(body.prompt_ids) - self.base.prompt_tail) if self.base.prompt_tail else 0
        try:
            made = self.base.renderer.bridge_to_next_turn(
                body.prompt_ids[cut:], body.completion_ids, messages, tools=tools
            )
        except Exception as error:
            log.warning("bridge failed", exc_info=error)
            return _no_bridge(f"the renderer failed: {error}")
        if made is None:
            return _no_bridge("the renderer cannot prove that the template would continue from these tokens")
        ids, before = body.prompt_ids[:cut] + list(made.token_ids), len(body.prompt_ids)
        end = before + len(body.completion_ids)
        # No sampled text may be lost: a renderer that cuts after the last closing token breaks the promise.
        if ids[:before] != body.prompt_ids or ids[before:end] != body.completion_ids:
            return _no_bridge("the answer goes on after the token that closes it")
        return {"ids": ids}

    def parse(self, ids: Ids, tools: list[Any] | None, visible: str | None = None) -> dict[str, Any]:
        self.check_ids(ids, "ids")
        return read_answer(self.base, ids, check_tools(tools), visible)

    async def calls(self, body: CallsBody) -> dict[str, Any]:
        form, tools = self.base.calls, check_tools(body.tools)
        if form is None or tools is None:
            raise HoneWorkerError(
                f"Answers of {self.base.base!r} cannot be held to calls of tools: its renderer {self.base.name!r} writes "
                'calls in a form that no grammar is made for, or its prompt opens a thought. Send "auto" as the '
                "tool_choice and leave out response_format; or take a base that writes calls as JSON in <tool_call>.",
                code="unsupported_schema",
                param="tool_choice",
            )
        schemas: list[dict[str, Any]] = []
        for i, tool in enumerate(tools):
            try:
                schemas.append(await self.schemas.check(arguments_of(tool, i)))
            except HoneWorkerError as error:
                if error.code != "unsupported_schema":
                    raise
                where = f"tools[{i}].function.parameters"
                raise HoneWorkerError(error.message, code=error.code, param=where) from error
        names = [tool["function"]["name"] for tool in tools]
        found = dict(zip(names, schemas, strict=True))
        return {"grammar": call_grammar(form, found, single=body.single, final=body.final)}

    def tokens(self, ids: Ids) -> dict[str, Any]:
        self.check_ids(ids, "ids")
        return {"tokens": [self.base.tokens.content(i) for i in ids]}

    def encode(self, text: str) -> Ids:
        """A plain prompt, as vLLM makes it of the same string: no template; what the tokenizer itself adds
        (a begin token, where a model has one) is added, and special tokens that the text spells are those."""
        return list(self.base.tokenizer(text, add_special_tokens=True)["input_ids"])

    def info(self) -> dict[str, Any]:
        base = self.base
        return {
            "stop_token_ids": base.stop_token_ids,
            "bridges": base.bridges,
            "tools": base.tools,
            "plain_texts": base.plain_texts,
            "renderer": base.name,
            "base": base.base,
            "max_model_len": base.max_model_len,
            "vocab_size": base.vocab_size,
            "longest_token": base.longest_token,
            "tool_markers": base.tool_markers,
            "reasoning_markers": base.reasoning_markers,
            "call_end": base.calls and {"text": CLOSE, "id": base.calls.close_id},
        }

    def check_ids(self, ids: Ids, where: str) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self.base.vocab_size):
            raise HoneWorkerError(
                f"{where}: token ids of this base are 0 to {self.base.vocab_size - 1}; "
                f"got {min(ids) if min(ids) < 0 else max(ids)}. Were they sampled from another base?",
                code="invalid_token_ids",
                param=where,
            )

    def routes(self, boot: str) -> list[Route]:
        async def render(request: Request) -> Response:
            body = await read_body(request, RenderBody)
            own = self.view(body.chat_template_kwargs)
            return await self.long.run(
                request,
                lambda: self._answer(
                    {"ids": own.render(body.messages, body.tools, prompt=body.generation_prompt)}
                ),
            )

        async def answer(request: Request) -> Response:
            body = await read_body(request, AnswerBody)
            own = self.view(body.chat_template_kwargs)
            return await self.long.run(
                request, lambda: self._answer({"ids": own.answer(body.messages, body.tools)})
            )

        async def bridge(request: Request) -> Response:
            body = await read_body(request, BridgeBody)
            own = self.view(body.chat_template_kwargs)
            return await self.long.run(request, lambda: self._answer(own.bridge(body)))

        async def parse(request: Request) -> Response:
            body = await read_body(request, ParseBody)
            own = self.view(body.chat_template_kwargs)
            return await self.long.run(
                request, lambda: self._answer(own.parse(body.ids, body.tools, body.visible))
            )

        async def calls(request: Request) -> Response:
            body = await read_body(request, CallsBody)
            return self._answer(await self.view(body.chat_template_kwargs).calls(body))

        async def tokens(request: Request) -> Response:
            body = await read_body(request, TokensBody)
            return await self.long.run(request, lambda: self._answer(self.tokens(body.ids)))

        async def encode(request: Request) -> Response:
            body = await read_body(request, EncodeBody)
            return await self.long.run(request, lambda: self._answer({"ids": self.encode(body.text)}))

        async def schema(request: Request) -> Response:
            body = await read_body(request, SchemaBody)
            return self._answer({"supported": True, "schema": await self.schemas.check(body.wanted)})

        async def info(_request: Request) -> Response:
            return self._answer(self.info())

        async def info_of(request: Request) -> Response:
            body = await read_body(request, _TemplateBody)
            return self._answer(self.view(body.chat_template_kwargs).info())

        return [
            Route("/render", render, methods=["POST"]),
            Route("/answer", answer, methods=["POST"]),
            Route("/bridge", bridge, methods=["POST"]),
            Route("/parse", parse, methods=["POST"]),
            Route("/calls", calls, methods=["POST"]),
            Route("/tokens", tokens, methods=["POST"]),
            Route("/encode", encode, methods=["POST"]),
            Route("/schema", schema, methods=["POST"]),
            Route("/info", info, methods=["GET"]),
            Route("/info", info_of, methods=["POST"]),
            health_route(boot, lambda: {"progress": self.answered, "phase": "idle"}),
        ]

    def _answer(self, value: dict[str, Any]) -> JSONResponse:
        self.answered += 1
        return JSONResponse(value)


def _no_bridge(reason: str) -> dict[str, Any]:
    return {"ids": None, "reason": reason}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="hone_worker.renderer", description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--renderer", default="auto")
    parser.add_argument("--renderer-options", type=json.loads, default=None)
    options = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    try:
        key, boot = environment()
        service = Service(load(options.base, options.renderer, options.renderer_options))
    except HoneWorkerError as error:
        # The parent reads the reason from the last line of standard error.
        print(json.dumps(error.envelope()), file=sys.stderr, flush=True)
        sys.exit(1)
    service.render([{"role": "user", "content": "warm up"}], None)
    run_service(create_app(service.routes(boot), key), boot)


if __name__ == "__main__":
    main()
