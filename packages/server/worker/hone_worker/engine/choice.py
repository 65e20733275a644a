"""One choice of one request: what was asked, what was sampled so far, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hone_worker.base.lora import LoraWeights
from hone_worker.engine.grammar import Grammar
from hone_worker.engine.sampling import SamplingParams, Uniforms
from hone_worker.engine.text import TextStream
from hone_worker.process.errors import HoneWorkerError

TopLogprobs = list[tuple[int, float]]


@dataclass(frozen=True)
class Stops:
    strings: tuple[str, ...] = ()
    #: Token ids that end the choice and are named as its `stop_reason`.
    ids: frozenset[int] = frozenset()
    #: The base's own end tokens. They end the choice without a `stop_reason`.
    eos: frozenset[int] = frozenset()


@dataclass
class Update:
    """What a step adds to a choice; `finish_reason` or `error` in the last one."""

    choice: Choice
    token_ids: list[int]
    logprobs: list[float]
    top: list[TopLogprobs]
    text: str
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: HoneWorkerError | None = None


@dataclass(eq=False)
class Choice:
    """Lives on the compute thread once it is queued; only `cancelled` is set from outside."""

    index: int
    prompt: list[int]
    adapter: LoraWeights | None
    sampling: SamplingParams
    stops: Stops
    max_tokens: int
    tokenizer: Any
    stream: bool = False
    top: int = 0
    grammar: Grammar | None = None
    #: Belongs to whoever waits for the updates. The decoder does not look into it.
    owner: Any = None
    cancelled: bool = False
    ids: list[int] = field(init=False)
    #: Hashes by which histories are found; the slots make them when they are needed.
    chain: list[int] | None = None
    uniforms: Uniforms = field(init=False)
    text: TextStream = field(init=False)
    logprobs: list[float] = field(default_factory=list)
    tops: list[TopLogprobs] = field(default_factory=list)
    _told: int = 0

    def __post_init__(self) -> None:
        self.ids = list(self.prompt)
        self.uniforms = Uniforms(self.sampling.seed, self.index)
        self.text = TextStream(self.tokenizer, self.stops.strings)

    @property
    def longest(self) -> int:
        return len(self.prompt) + self.max_tokens

    def accept(self, token: int, logprob: float, top: TopLogprobs) -> Update | None:
        """Adds a sampled token. Gives an update if there is something to tell now."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if self.top:
            self.tops.append(top[: self.top])
        finish: str | None = None
        reason: int | str | None = None
        if token in self.stops.ids:
            finish, reason = "stop", token
        elif token in self.stops.eos:
            finish = "stop"
        else:
            if self.stream or self.stops.strings:
                self.text.push(token)
            else:
                self.text.hold(token)
            if self.grammar is not None:
                self.grammar.accept(token)
            if self.text.stopped_by is not None:
                finish, reason = "stop", self.text.stopped_by
            elif self.grammar is not None and self.grammar.over:
                finish = "stop"
            elif len(self.logprobs) >= self.max_tokens:
                finish = "length"
        if finish is None and not self.stream:
            return None
        if finish is not None:
            self.text.finish()
            if self.text.stopped_by is not None and reason is None:
                finish, reason = "stop", self.text.stopped_by
        return self._update(finish, reason)

    def _update(self, finish: str | None, reason: int | str | None) -> Update:
        start = self._told
        self._told = len(self.logprobs)
        return Update(
            self,
            self.ids[len(self.prompt) + start :],
            self.logprobs[start:],
            self.tops[start:],
            self.text.take(final=finish is not None),
            finish,
            reason,
        )

    def fail(self, error: HoneWorkerError) -> Update:
        return Update(self, [], [], [], "", error=error)
