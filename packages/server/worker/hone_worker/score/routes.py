"""`POST /score`: what the reward models of this worker think of conversations or texts; `POST /score/policy`: what a
policy with a scalar head thinks of token ids."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hone_worker.base.decoder_layers import telling
from hone_worker.process.compute import Compute
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.service import read_body
from hone_worker.render.messages import check_messages
from hone_worker.score.policy_scores import FORWARD_TOKENS, PolicyScorer, ScoringPolicy
from hone_worker.score.reward_model import Encoded, RewardModel, forwards

MAX_ITEMS = 1024


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")
    messages: list[Any] | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.messages is None) == (self.text is None):
            raise ValueError("an item has either 'messages' or 'text'")
        return self


class ScoreBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    items: list[Item] = Field(min_length=1, max_length=MAX_ITEMS)
    #: What happens to an item that is longer than the model reads.
    too_long: Literal["error", "null", "truncate"] = "error"
    #: The label whose probability is the score, if the model has several.
    label: str | None = None


class PolicyScoreBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    #: The folder of the policy: an adapter, and a head beside it.
    policy: str
    items: list[list[int]] = Field(min_length=1, max_length=MAX_ITEMS)


@dataclass(frozen=True)
class ScoreRoutes:
    models: dict[str, RewardModel]
    compute: Compute
    policies: PolicyScorer

    def routes(self) -> list[Route]:
        return [
            Route("/score", self.score, methods=["POST"]),
            Route("/score/policy", self.score_policy, methods=["POST"]),
            Route("/reward-models", self.cards, methods=["GET"]),
        ]

    async def cards(self, _request: Request) -> Response:
        return JSONResponse({"models": [_card(model) for model in self.models.values()]})

    async def score(self, request: Request) -> Response:
        body = await read_body(request, ScoreBody)
        model = self._model(body.model)
        label = _label(model, body.label)
        encoded = await asyncio.to_thread(_encode, model, body)
        scored = [
            place for place, item in enumerate(encoded) if not item.truncated or body.too_long != "null"
        ]
        scores: list[float | None] = [None] * len(encoded)
        for together in forwards([len(encoded[place].ids) for place in scored]):
            if await request.is_disconnected():
                return Response(status_code=499)
            places = [scored[i] for i in together]
            found = await asyncio.wrap_future(
                self.compute.submit(partial(self._run, model, [encoded[p].ids for p in places], label))
            )
            for place, value in zip(places, found, strict=True):
                scores[place] = _finite(model.name, value)
        data = [
            {"score": score, "tokens": item.tokens, "truncated": item.truncated and score is not None}
            for item, score in zip(encoded, scores, strict=True)
        ]
        return JSONResponse({"model": _card(model), "data": data})

    async def score_policy(self, request: Request) -> Response:
        body = await read_body(request, PolicyScoreBody)
        if not Path(body.policy).is_absolute():
            raise HoneWorkerError("Give an absolute path.", code="invalid_request", param="policy")
        self.policies.check(body.items)
        policy = await asyncio.to_thread(self.policies.policy, body.policy)
        scores: list[float] = [0.0] * len(body.items)
        for places in forwards([len(ids) for ids in body.items], FORWARD_TOKENS):
            if await request.is_disconnected():
                return Response(status_code=499)
            sequences = [body.items[place] for place in places]
            found = await asyncio.wrap_future(
                self.compute.submit(partial(self._run_policy, policy, sequences))
            )
            for place, value in zip(places, found, strict=True):
                scores[place] = _finite(Path(body.policy).name, value)
        return JSONResponse({"scores": scores})

    def _run_policy(self, policy: ScoringPolicy, sequences: list[list[int]]) -> list[float]:
        with telling(self.policies.base.model, self.compute.tick):
            values = self.policies.score(policy, sequences)
        self.compute.tick()
        return values

    def _run(self, model: RewardModel, sequences: list[list[int]], label: int) -> list[float]:
        with telling(model.model, self.compute.tick):
            values = model.score(sequences, label)
        self.compute.tick()
        return values

    def _model(self, name: str) -> RewardModel:
        model = self.models.get(name)
        if model is not None:
            return model
        known = ", ".join(self.models)
        message = (
            f"There is no reward model '{name}'. This server has: {known}."
            if known
            else "This server has no reward model. Start it with --reward-model NAME=FOLDER."
        )
        raise HoneWorkerError(message, code="model_not_found", status=404, param="model")


def _encode(model: RewardModel, body: ScoreBody) -> list[Encoded]:
    found: list[Encoded] = []
    for place, item in enumerate(body.items):
        where = f"items[{place}]"
        try:
            if item.messages is not None:
                encoded = model.encode(model.text_of(check_messages(item.messages)), templated=True)
            else:
                encoded = model.encode(item.text or "", templated=False)
        except HoneWorkerError as error:
            param = f"{where}.{error.param}" if error.param else where
            text = f"{where}: {error.message}"
            raise HoneWorkerError(text, code=error.code, status=error.status, param=param) from error
        if encoded.truncated and body.too_long == "error":
            message = (
                f"{where} has {encoded.tokens} tokens, and '{model.name}' reads {model.max_tokens}. "
                "Shorten it, or choose what becomes of an item that is too long."
            )
            raise HoneWorkerError(message, code="context_length_exceeded", param=where)
        found.append(encoded)
    return found


def _label(model: RewardModel, wanted: str | None) -> int:
    if wanted is None and len(model.labels) == 1:
        return 0
    if wanted in model.labels:
        return model.labels.index(wanted)
    message = f"'{model.name}' has the labels {', '.join(model.labels)}. Name the one whose probability is the score."
    raise HoneWorkerError(message, code="unknown_label", param="label")


def _finite(name: str, value: float) -> float:
    if value - value == 0:
        return value
    message = f"'{name}' gave no finite score. Check its weights."
    raise HoneWorkerError(message, code="not_finite", status=500)


def _card(model: RewardModel) -> dict[str, Any]:
    return {"name": model.name, "max_tokens": model.max_tokens, "labels": list(model.labels)}
