"""The worker process: the embedded engine and the trainer around one copy of the base."""

from __future__ import annotations

import os

# Before torch is imported: idle OpenMP threads must sleep, because the cores have other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import asyncio
import errno
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.lora import LoraSpec, default_targets
from hone_worker.base.model import DTYPES, Base, load_base
from hone_worker.base.thread_count import measured
from hone_worker.engine.engine import Engine, default_cache_bytes
from hone_worker.engine.routes import engine_routes
from hone_worker.process.compute import Compute
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.service import (
    Lifeline,
    create_app,
    environment,
    health_route,
    read_body,
    run_service,
)
from hone_worker.score.policy_scores import PolicyScorer
from hone_worker.score.reward_model import RewardModel, load_reward_model
from hone_worker.score.routes import ScoreRoutes
from hone_worker.train.cores import Cores, measure_cores, remembered
from hone_worker.train.memory import TrainerMemory, step_bytes
from hone_worker.train.objectives import OBJECTIVES
from hone_worker.train.objectives.custom import load_objectives
from hone_worker.train.prompt_logprobs import prompt_logprobs
from hone_worker.train.routes import routes as train_routes
from hone_worker.train.side_by_side import SideBySide, can_be_side_by_side


class LoraBody(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    r: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    target_modules: list[str] | None = Field(None, min_length=1)


class AdapterBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    staging: str = Field(min_length=1)
    lora: LoraBody = Field(default_factory=LoraBody)
    seed: int = Field(0, ge=0, lt=2**63)


def adapter_route(base: Base) -> Route:
    async def create(request: Request) -> Response:
        body = await read_body(request, AdapterBody)
        if not Path(body.staging).is_absolute():
            raise HoneWorkerError("Give an absolute path.", code="invalid_request", param="staging")
        targets = body.lora.target_modules or default_targets(base.model)
        spec = LoraSpec(body.lora.r, body.lora.alpha, tuple(targets))

        def write() -> list[str]:
            Path(body.staging).mkdir(parents=True, exist_ok=True)
            weights = fresh_adapter(base.model, spec, body.seed)
            try:
                return write_adapter(body.staging, weights, base.name)
            except OSError as cause:
                full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
                raise HoneWorkerError(
                    f"The adapter cannot be written: {cause.strerror}. Free some space or check the data "
                    "directory, then make the model again.",
                    code="disk_full" if full else "bad_staging",
                    status=507 if full else 500,
                ) from cause

        return JSONResponse({"files": await asyncio.to_thread(write)})

    return Route("/adapters", create, methods=["POST"])


def worker_routes(
    base: Base,
    compute: Compute,
    engine: Engine | None,
    boot: str,
    reward_models: Sequence[RewardModel] = (),
    memory: TrainerMemory | None = None,
) -> list[BaseRoute]:
    def status() -> dict[str, Any]:
        return {"progress": compute.progress, "phase": compute.phase}

    routes: list[BaseRoute] = [health_route(boot, status), adapter_route(base)]
    routes += ScoreRoutes(
        {model.name: model for model in reward_models}, compute, PolicyScorer(base)
    ).routes()
    if engine is not None:
        routes += engine_routes(engine)
    memory = memory or TrainerMemory(base)
    routes.append(memory_route(base, engine, memory))
    return routes + train_routes(base, compute, memory)


def memory_route(base: Base, engine: Engine | None, memory: TrainerMemory) -> Route:
    """What each part gets of the memory, in bytes, as it was when the worker started, and the base's type."""
    shares: dict[str, Any] = {
        "dtype": next(name for name, dtype in DTYPES.items() if dtype == base.dtype),
        "base": base.weight_bytes,
        "kv_cache": engine.decoder.cache_bytes if engine else 0,
        "trainer": memory.budget(),
        # Asked by whoever shares the card.
        "step": step_bytes(memory) if engine is None and base.device.type == "cuda" else 0,
    }

    async def show(_request: Request) -> Response:
        return JSONResponse(shares)

    return Route("/memory", show, methods=["GET"])


def _share(text: str) -> float:
    share = float(text)
    if not 0.05 <= share <= 0.95:
        raise argparse.ArgumentTypeError("it must be from 0.05 to 0.95")
    return share


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return count


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hone_worker.worker", description=__doc__)
    parser.add_argument("--base", required=True, help="folder or hub id of the base model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "auto"])
    parser.add_argument("--quantize", choices=["nf4"], help="hold the base's linear layers in 4 bits")
    parser.add_argument("--served-name", help="the name that means the bare base")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-rows", type=int, default=64, help="sequences decoded at once")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--cache-mib", type=int, help="memory for keys and values of sequences")
    kept.add_argument(
        "--engine-share",
        type=_share,
        help="the same as a share of what the base leaves free, from 0.05 to 0.95",
    )
    parser.add_argument(
        "--recompute",
        default="auto",
        choices=["auto", "on", "off"],
        help="compute a layer's activations again in its backward: always, never, or where memory asks for it",
    )
    parser.add_argument("--threads-decode", type=int, help="measured at the start unless given")
    parser.add_argument("--threads-train", type=int, help="measured at the start unless given")
    parser.add_argument(
        "--parts-train",
        type=_count,
        help="parts of a micro-batch at the same time, each with one thread; 1 where --threads-train is given, measured otherwise",
    )
    parser.add_argument("--threads-file", type=Path, help="keeps the two measured numbers, of this device")
    parser.add_argument(
        "--reward-model",
        action="append",
        default=[],
        metavar="NAME=FOLDER|ID",
        help="a sequence classifier that scores what is sent to /score",
    )
    parser.add_argument(
        "--objectives",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a Python file with an OBJECTIVE, which train then takes by its name",
    )
    parser.add_argument(
        "--paths",
        default="",
        metavar="NAME=WAY,…",
        help="how parts of the work are computed (base/compute_paths.py); the device decides unless given",
    )
    parser.add_argument("--no-engine", action="store_true", help="train only: another engine generates")
    parser.add_argument(
        "--spare-cache",
        action="store_true",
        help="with --no-engine: leave memory for the keys and values of a worker that generates on this machine",
    )
    parser.add_argument(
        "--release-after-step",
        action="store_true",
        help="with --device cuda: leave the card's memory to others between steps, also what could be used again",
    )
    return parser.parse_args(arguments)


def _reward_model(text: str, options: argparse.Namespace, of_base: torch.dtype) -> RewardModel:
    name, _, source = text.partition("=")
    # On a CPU a small model loses more by rounding than it gains.
    dtype = torch.float32 if options.device == "cpu" else of_base
    return load_reward_model(name, source, device=options.device, dtype=dtype)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    lifeline = Lifeline()
    key, boot = environment()
    for file in options.objectives:
        load_objectives(file, OBJECTIVES)
    base = load_base(
        options.base,
        device=options.device,
        dtype=None if options.dtype == "auto" else options.dtype,
        served_name=options.served_name,
        max_model_len=options.max_model_len,
        paths=ComputePaths.parse(options.paths),
        quantize=options.quantize,
    )
    reward_models = [_reward_model(text, options, base.dtype) for text in options.reward_model]
    if (options.parts_train or 1) > 1 and not can_be_side_by_side(base):
        raise HoneWorkerError(
            "--parts-train above 1 is for a processor, with neither lora=joined nor layer=compiled in --paths, and "
            "for a base without dynamic or longrope positions.",
            code="bad_option",
            param="parts_train",
        )
    cores = (
        Cores(options.threads_train, options.parts_train or 1)
        if options.threads_train
        else remembered(options.threads_file, base.device.type, lambda: measure_cores(base))
    )
    # The file may be of a start with other paths.
    parts = (options.parts_train or cores.parts) if can_be_side_by_side(base) else 1
    compute = Compute(
        decode_threads=options.threads_decode or measured(base, rows=16, width=1), train_threads=cores.train
    )
    engine = None
    cache_bytes = 0
    if options.spare_cache or not options.no_engine:
        if options.cache_mib:
            cache_bytes = options.cache_mib * 2**20
        else:
            cache_bytes = default_cache_bytes(base.device, options.engine_share)
    if not options.no_engine:
        engine = Engine(
            base, compute, max_rows=options.max_rows, cache_bytes=cache_bytes, scorer=prompt_logprobs
        )
    memory = TrainerMemory(
        base,
        recompute=options.recompute,
        # What another process has filled of its own is counted twice: better than too little.
        reserved=engine.unfilled_bytes if engine else lambda: cache_bytes,
        release_after_step=options.release_after_step,
        side_by_side=SideBySide(parts),
    )
    app = create_app(worker_routes(base, compute, engine, boot, reward_models, memory), key)
    compute.start(engine.decoder if engine is not None else None)
    run_service(app, boot, lifeline=lifeline, on_stop=compute.stop)


if __name__ == "__main__":
    try:
        main()
    except HoneWorkerError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        sys.exit(1)
