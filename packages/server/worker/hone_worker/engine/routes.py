"""The engine's HTTP routes: the part of vLLM's API that takes token ids and gives token ids."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hone_worker.engine.choice import Update
from hone_worker.engine.engine import Engine, Generation
from hone_worker.engine.grammar import Grammar
from hone_worker.engine.sampling import SamplingParams
from hone_worker.process.errors import envelope_of
from hone_worker.process.service import log, read_body

StopString = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    continuous_usage_stats: Literal[False] = False


class JsonSchema(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = "answer"
    description: str | None = None
    # Named otherwise here: pydantic's own class has a `schema`.
    wanted: dict[str, Any] = Field(alias="schema")
    #: Has no effect, because every answer is held to its schema.
    strict: bool | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' goes with the type 'json_schema'")
        return self


class StructuredOutputs(BaseModel):
    model_config = ConfigDict(extra="forbid")
    #: In llguidance's language.
    grammar: str = Field(min_length=1)


class CompletionBody(BaseModel):
    """What is not named here is refused: an option that does nothing would change what is trained."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: str
    prompt: list[TokenId] = Field(min_length=1)
    max_tokens: int = Field(16, ge=1)
    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int = Field(1, ge=1, le=128)
    stop: list[StopString] | StopString | None = None
    stop_token_ids: list[TokenId] | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    #: How likely each token of the prompt is. Others than those of the prompt are not listed.
    prompt_logprobs: Literal[0] | None = None
    return_token_ids: bool | None = None
    #: Tokens of `logprobs` as "token_id:7": two tokens may have one text, or half a character each.
    return_tokens_as_token_ids: bool | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    # vLLM's names for what this engine always does: accepted at that value only.
    min_p: float = Field(0, ge=0, le=0)
    repetition_penalty: float = Field(1, ge=1, le=1)
    presence_penalty: float = Field(0, ge=0, le=0)
    frequency_penalty: float = Field(0, ge=0, le=0)
    include_stop_str_in_output: Literal[False] = False
    skip_special_tokens: Literal[True] = True
    echo: Literal[False] = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.prompt_logprobs is not None and self.stream:
            raise ValueError("'prompt_logprobs' does not go with 'stream'")
        if self.response_format is not None and self.structured_outputs is not None:
            raise ValueError("'response_format' does not go with 'structured_outputs'")
        return self

    @property
    def stops(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


class LoadBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lora_name: str = Field(min_length=1, max_length=256)
    lora_path: str = Field(min_length=1)
    load_inplace: Literal[False] = False


class UnloadBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lora_name: str = Field(min_length=1)


def engine_routes(engine: Engine) -> list[Route]:
    created = int(time.time())

    async def completions(request: Request) -> Response:
        body = await read_body(request, CompletionBody)
        grammar = await _grammar(engine, body)
        scored = None if body.prompt_logprobs is None else await engine.score(body.model, body.prompt)
        generation = engine.generate(
            model=body.model,
            prompt=body.prompt,
            sampling=SamplingParams(body.temperature, body.top_p, max(0, body.top_k), body.seed),
            n=body.n,
            max_tokens=body.max_tokens,
            stop=body.stops,
            stop_token_ids=body.stop_token_ids or (),
            ignore_eos=body.ignore_eos,
            stream=body.stream,
            top=body.logprobs or 0,
            grammar=grammar,
        )
        shape = AnswerShape(engine, body, scored)
        if body.stream:
            return TokenStream(engine, generation, shape)
        return await _collect(request, engine, generation, shape)

    async def load(request: Request) -> Response:
        body = await read_body(request, LoadBody)
        await engine.load_adapter(body.lora_name, body.lora_path)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added.")

    async def unload(request: Request) -> Response:
        body = await read_body(request, UnloadBody)
        engine.unload_adapter(body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed.")

    async def models(_request: Request) -> Response:
        base = engine.base
        limit = base.max_model_len
        data = [_model_card(base.name, None, base.name, limit, created)]
        data += [_model_card(a.name, base.name, a.path, limit, created) for a in engine.adapters.values()]
        return JSONResponse({"object": "list", "data": data})

    async def metrics(_request: Request) -> Response:
        decoder = engine.decoder
        table = decoder.table
        values = (
            ("num_requests_running", "gauge", decoder.running),
            ("num_requests_waiting", "gauge", decoder.waiting),
            ("generation_tokens_total", "counter", decoder.tokens_decoded),
            ("prompt_tokens_total", "counter", decoder.tokens_prefilled),
            # Tokens of prompts, and those whose keys and values were there already.
            ("prefix_cache_queries_total", "counter", decoder.reuse.prompt_tokens),
            ("prefix_cache_hits_total", "counter", decoder.reuse.reused_tokens),
            ("kv_cache_usage_perc", "gauge", table.kept_bytes / max(1, decoder.cache_bytes)),
        )
        own = (
            ("kv_cache_bytes", "gauge", decoder.cache_bytes),
            ("kv_histories", "gauge", len(table.histories)),
            ("kv_histories_evicted_total", "counter", decoder.reuse.evicted),
        )
        label = json.dumps(engine.base.name)
        lines = []
        for owner, told in (("vllm", values), ("hone", own)):
            for name, kind, value in told:
                lines += [f"# TYPE {owner}:{name} {kind}", f"{owner}:{name}{{model_name={label}}} {value}"]
        return PlainTextResponse("\n".join(lines) + "\n")

    return [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/load_lora_adapter", load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]


async def _grammar(engine: Engine, body: CompletionBody) -> Grammar | None:
    wanted, written = body.response_format, body.structured_outputs
    if written is None and (wanted is None or wanted.type == "text"):
        return None
    # A request that is refused anyway is not worth a grammar.
    engine.check(body.model, body.prompt)
    ends = {*engine.ends(body.ignore_eos), *(body.stop_token_ids or ())}
    if written is not None:
        return await asyncio.to_thread(engine.grammars.compile_source, written.grammar, ends)
    schema = None
    if wanted is not None and wanted.json_schema is not None:
        schema = await engine.grammars.checks.check(wanted.json_schema.wanted)
    return await asyncio.to_thread(engine.grammars.compile, schema, ends)


def _model_card(name: str, parent: str | None, root: str, limit: int, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "hone",
        "parent": parent,
        "root": root,
        "max_model_len": limit,
    }


class AnswerShape:
    """Turns updates into the bodies of vLLM's completions API."""

    def __init__(self, engine: Engine, body: CompletionBody, scored: list[float] | None = None) -> None:
        self.engine = engine
        self.body = body
        self.scored = scored
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self._begun: set[int] = set()

    def envelope(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.body.model,
            "choices": choices,
            **more,
        }

    def choice(self, update: Update) -> dict[str, Any]:
        index = update.choice.index
        shown: dict[str, Any] = {
            "index": index,
            "text": update.text,
            "logprobs": None,
            "finish_reason": update.finish_reason,
            "stop_reason": update.stop_reason,
        }
        if self.body.logprobs is not None:
            token = self._token
            top = None
            if self.body.logprobs:
                top = [{token(i): value for i, value in row} for row in update.top]
            shown["logprobs"] = {
                "tokens": [token(i) for i in update.token_ids],
                "token_logprobs": update.logprobs,
                "top_logprobs": top,
                "text_offset": None,
            }
        if self.body.return_token_ids:
            shown["token_ids"] = update.token_ids
            shown["prompt_token_ids"] = self.body.prompt if index not in self._begun else None
        if self.scored is not None:
            told = zip(self.body.prompt[1:], self.scored, strict=True)
            shown["prompt_logprobs"] = [None, *({str(token): {"logprob": value}} for token, value in told)]
        self._begun.add(index)
        return shown

    def usage(self, completion_tokens: int) -> dict[str, int]:
        prompt = len(self.body.prompt)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt + completion_tokens,
        }

    def _token(self, token: int) -> str:
        if self.body.return_tokens_as_token_ids:
            return f"token_id:{token}"
        return self.engine.token_text(token)


async def _until_gone(receive: Callable[[], Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _collect(request: Request, engine: Engine, generation: Generation, shape: AnswerShape) -> Response:
    async def read() -> list[Update]:
        return [u async for updates in generation.updates() for u in updates]

    reader = asyncio.ensure_future(read())
    gone = asyncio.ensure_future(_until_gone(request.receive))
    try:
        await asyncio.wait({reader, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not reader.done():
            return Response(status_code=499)
        updates = sorted(reader.result(), key=lambda u: u.choice.index)
    finally:
        # After a normal end there is nothing left to cancel, and this does nothing.
        engine.cancel(generation)
        reader.cancel()
        gone.cancel()
    tokens = sum(len(u.token_ids) for u in updates)
    return JSONResponse(shape.envelope([shape.choice(u) for u in updates], usage=shape.usage(tokens)))


class TokenStream(Response):
    """Server-sent events. A failure in mid-stream is an event and then an abrupt close, never a clean end."""

    def __init__(self, engine: Engine, generation: Generation, shape: AnswerShape) -> None:
        super().__init__(status_code=200, media_type="text/event-stream")
        # The base class counted an empty body.
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self._engine = engine
        self._generation = generation
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({sender, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
        finally:
            self._engine.cancel(self._generation)
            sender.cancel()
            gone.cancel()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        tokens = 0
        try:
            async for updates in self._generation.updates():
                for update in _merged(updates):
                    tokens += len(update.token_ids)
                    await self._event(send, self._shape.envelope([self._shape.choice(update)]))
        except Exception as error:
            status, body = envelope_of(error)
            if status >= 500:
                log.error("a stream failed", exc_info=error)
            await self._event(send, body)
            # No last part of the body: the server closes the connection, and the client sees it break.
            return
        options = self._shape.body.stream_options
        if options is not None and options.include_usage:
            await self._event(send, self._shape.envelope([], usage=self._shape.usage(tokens)))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    async def _event(self, send: Send, body: dict[str, Any]) -> None:
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})


def _merged(updates: list[Update]) -> list[Update]:
    """Merges updates to one for each choice. A reader that fell behind gets longer chunks, not more of them."""
    merged: dict[int, Update] = {}
    for update in updates:
        before = merged.get(update.choice.index)
        if before is None:
            merged[update.choice.index] = update
        else:
            merged[update.choice.index] = Update(
                update.choice,
                before.token_ids + update.token_ids,
                before.logprobs + update.logprobs,
                before.top + update.top,
                before.text + update.text,
                update.finish_reason,
                update.stop_reason,
            )
    return list(merged.values())
