"""The embedded engine for the event loop: adapters by name, requests in, tokens out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

import torch

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.decoder_layers import telling
from hone_worker.base.free_memory import free_bytes, total_bytes
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.choice import Choice, Stops, Update
from hone_worker.engine.decode import Decoder
from hone_worker.engine.grammar import Grammar, Grammars
from hone_worker.engine.sampling import SamplingParams
from hone_worker.process.compute import Compute
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import fault

#: The logprob of each token of a sequence but the first, on the compute thread: the trainer's forward.
Scorer = Callable[[Base, LoraWeights | None, list[int]], list[float]]


@dataclass(frozen=True)
class LoadedAdapter:
    name: str
    path: str
    weights: LoraWeights


@dataclass
class Generation:
    """The choices of one request and the updates that wait to be read."""

    choices: list[Choice]
    _updates: list[Update] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def deliver(self, update: Update) -> None:
        self._updates.append(update)
        self._news.set()

    async def updates(self) -> AsyncIterator[list[Update]]:
        """Yields updates, those that wait together, until every choice has ended. An error ends it as an exception."""
        open_choices = len(self.choices)
        while open_choices:
            await self._news.wait()
            self._news.clear()
            waiting, self._updates = self._updates, []
            for update in waiting:
                if update.error is not None:
                    raise update.error
                open_choices -= update.finish_reason is not None
            yield waiting


class Engine:
    """Names and requests live on the event loop, sequences on the compute thread."""

    def __init__(
        self,
        base: Base,
        compute: Compute,
        *,
        max_rows: int = 64,
        cache_bytes: int | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        self.base = base
        self.compute = compute
        self._scorer = scorer
        self.adapters: dict[str, LoadedAdapter] = {}
        self._loading: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._token_texts: dict[int, str] = {}
        self.eos = end_tokens(base)
        self.grammars = Grammars(base)
        self.decoder = Decoder(
            base,
            self._on_updates,
            max_rows=max_rows,
            cache_bytes=cache_bytes or default_cache_bytes(base.device),
            on_progress=compute.tick,
        )

    def unfilled_bytes(self) -> int:
        """What keys and values may still take of the memory that is free now."""
        return max(0, self.decoder.cache_bytes - self.decoder.table.kept_bytes)

    async def load_adapter(self, name: str, path: str) -> None:
        if name == self.base.name or name in self.adapters or name in self._loading:
            message = f"'{name}' is loaded already. A name is never given to other weights: use a new one."
            raise HoneWorkerError(message, code="adapter_exists", param="lora_name")
        self._loading.add(name)
        try:
            weights = await asyncio.to_thread(read_adapter, path, self.base.model)
        finally:
            self._loading.discard(name)
        fault("worker.adapter-load")
        self.adapters[name] = LoadedAdapter(name, path, weights)

    def unload_adapter(self, name: str) -> None:
        loaded = self.adapters.pop(name, None)
        if loaded is None:
            message = f"No adapter '{name}' is loaded. GET /v1/models lists those that are."
            raise HoneWorkerError(message, code="adapter_not_found", status=404, param="lora_name")
        self.compute.submit(lambda: self.decoder.forget(loaded.weights))

    def adapter_of(self, model: str) -> LoraWeights | None:
        """The weights behind a model's name; None for the bare base."""
        if model == self.base.name:
            return None
        loaded = self.adapters.get(model)
        if loaded is None:
            message = f"The model '{model}' is not served here. GET /v1/models lists those that are."
            raise HoneWorkerError(message, code="model_not_found", status=404, param="model")
        return loaded.weights

    def generate(
        self,
        *,
        model: str,
        prompt: list[int],
        sampling: SamplingParams,
        n: int = 1,
        max_tokens: int,
        stop: Iterable[str] = (),
        stop_token_ids: Iterable[int] = (),
        ignore_eos: bool = False,
        stream: bool = False,
        top: int = 0,
        grammar: Grammar | None = None,
    ) -> Generation:
        """Queues a request. Whoever reads it calls `cancel` if they stop before its end."""
        adapter = self.check(model, prompt)
        stops = Stops(tuple(stop), frozenset(stop_token_ids), self.ends(ignore_eos))
        self._loop = asyncio.get_running_loop()
        choices = [
            Choice(
                index=index,
                prompt=prompt,
                adapter=adapter,
                sampling=sampling,
                stops=stops,
                max_tokens=min(max_tokens, self.base.max_model_len - len(prompt)),
                tokenizer=self.base.tokenizer,
                stream=stream,
                top=top,
                grammar=grammar.copy() if grammar is not None else None,
            )
            for index in range(n)
        ]
        generation = Generation(choices)
        for choice in choices:
            choice.owner = generation
        self.decoder.enqueue(choices)
        self.compute.notify()
        return generation

    async def score(self, model: str, prompt: list[int]) -> list[float]:
        """How likely the model finds each token of the prompt but the first."""
        adapter = self.check(model, prompt)
        scorer = self._scorer
        if scorer is None:
            message = "This engine does not score given tokens. Leave `prompt_logprobs` out."
            raise HoneWorkerError(message, code="invalid_request", param="prompt_logprobs")

        def scored() -> list[float]:
            with telling(self.base.model, self.compute.tick):
                found = scorer(self.base, adapter, prompt)
            self.compute.tick()
            return found

        return await asyncio.wrap_future(self.compute.submit(scored))

    def check(self, model: str, prompt: list[int]) -> LoraWeights | None:
        """The weights behind the model's name, if it can take the prompt."""
        adapter = self.adapter_of(model)
        self._check_prompt(prompt)
        return adapter

    def ends(self, ignore_eos: bool) -> frozenset[int]:
        return frozenset() if ignore_eos else self.eos

    def cancel(self, generation: Generation) -> None:
        for choice in generation.choices:
            choice.cancelled = True
        self.compute.notify()

    def token_text(self, token: int) -> str:
        """One token as text, special ones included."""
        text = self._token_texts.get(token)
        if text is None:
            text = self._token_texts[token] = self.base.tokenizer.decode([token])
        return text

    def _check_prompt(self, prompt: list[int]) -> None:
        limit = self.base.max_model_len
        if len(prompt) + 1 > limit:
            message = (
                f"The prompt has {len(prompt)} tokens; with one to sample the limit is {limit}. Shorten it."
            )
            raise HoneWorkerError(message, code="context_length_exceeded", param="prompt")
        if min(prompt) < 0 or max(prompt) >= self.base.vocab_size:
            message = f"Token ids must be from 0 to {self.base.vocab_size - 1}."
            raise HoneWorkerError(message, code="invalid_request", param="prompt")

    def _on_updates(self, updates: list[Update]) -> None:
        """Runs on the compute thread. It calls the event loop once for each step, whatever the number of rows."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(_deliver, updates)
        except RuntimeError:
            # The loop closed in between: the process is ending.
            return


def _deliver(updates: list[Update]) -> None:
    for update in updates:
        update.choice.owner.deliver(update)


def end_tokens(base: Base) -> frozenset[int]:
    """The base's own end tokens: its generation configuration, else its tokenizer's."""
    config = getattr(base.model, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    if ends is None:
        ends = getattr(base.tokenizer, "eos_token_id", None)
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)


def default_cache_bytes(device: torch.device, share: float | None = None) -> int:
    """This share of what the base leaves free. Without one it is half on a GPU; else a quarter of this process's
    memory, at most half of what is free."""
    free = free_bytes(device)
    if share is not None:
        return int(free * share)
    return free // 2 if device.type == "cuda" else min(total_bytes() // 4, free // 2)
