"""Decoding by the embedded engine, step by step and as a replayed graph, beside transformers' own ways."""

from __future__ import annotations

import time
from typing import Any

import torch
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.process.errors import HoneWorkerError

from gpu.engine_run import choice_of, decoder_of, tokens_per_second
from gpu.shapes import adapter_of, config_of, make_base, random_model
from gpu.stage import Stage, free_memory, sync, timed


def run(stage: Stage) -> None:
    config = config_of(stage.shape)
    base = make_base(config, stage.device, stage.dtype)
    policy = adapter_of(base)
    if stage.full:
        grid = [(1, 512), (8, 512), (32, 1024), (64, 1024), (128, 1024), (256, 1024)]
        steps = 64
    else:
        grid, steps = [(1, 24), (5, 40)], 6
    for rows, context in grid:
        _eager_and_graph(stage, base, policy, rows, context, steps)
    _publish(stage, base, 64 if stage.full else 4)
    del base, policy
    free_memory()
    _transformers(stage, config, grid[:4], steps)


def _eager_and_graph(
    stage: Stage, base: Base, policy: LoraWeights, rows: int, context: int, steps: int
) -> None:
    roofline = _roofline(stage, base, rows, context)
    for way in ("eager", "graph"):
        where = {"way": way, "rows": rows, "context": context}
        if stage.left < 0:
            stage.tell(kind="skipped", **where, why="no time was left")
            continue
        try:
            free_memory()
            rate, filled, taken = tokens_per_second(
                base,
                policy,
                rows=rows,
                context=context,
                steps=steps,
                decode=way,
                cache_bytes=_cache_bytes(stage),
            )
            stage.tell(
                kind="decode",
                **where,
                tokens_per_second=rate,
                milliseconds_per_step=1e3 * rows / rate,
                fill_seconds=filled,
                graphs_taken=taken,
                of_roofline=None if roofline is None else rate / roofline,
            )
        except HoneWorkerError as error:
            stage.tell(kind="refused", **where, why=error.message)
        except Exception as error:
            stage.tell(kind="failed", **where, why=f"{type(error).__name__}: {error}"[:2000])


def _cache_bytes(stage: Stage) -> int:
    if stage.device == "cuda":
        return torch.cuda.mem_get_info()[0] // 2
    return 1 << 28


def _roofline(stage: Stage, base: Base, rows: int, context: int) -> float | None:
    """Tokens a second if a step took only the time to read the weights once, and each row's keys and values."""
    if stage.device != "cuda":
        return None
    config = base.model.config
    weights = sum(p.numel() * p.element_size() for p in base.model.parameters())
    per_place = (
        2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * base.dtype.itemsize
    )
    size = 1 << 30
    source = torch.ones(size, dtype=torch.uint8, device=stage.device)
    target = torch.empty_like(source)
    rate = 2 * size / min(timed(lambda: target.copy_(source)) for _ in range(4))
    return rows * rate / (weights + rows * context * per_place)


def _publish(stage: Stage, base: Base, rows: int) -> None:
    """Seconds from a policy that nobody has used to its first token, beside rows of another policy that decode."""
    old = adapter_of(base, 1)
    for way in ("eager", "graph"):
        decoder, updates = decoder_of(base, way, rows + 1, _cache_bytes(stage))
        prompt = list(range(1, 33))
        decoder.enqueue([choice_of(base, prompt, old, 1 << 20, row) for row in range(rows)])
        while decoder.table.live < rows:
            decoder.step()
        for _ in range(3):
            decoder.step()
        taken = []
        for number in range(3):
            sync()
            new = adapter_of(base, 10 + number).to(base.device)
            updates.clear()
            choice = choice_of(base, prompt, new, 2, 1, stream=True)
            began = time.perf_counter()
            decoder.enqueue([choice])
            while not any(u.choice is choice for u in updates):
                decoder.step()
            taken.append(time.perf_counter() - began)
            while any(s.choice is choice for s in decoder.table.slots):
                decoder.step()
        stage.tell(kind="publish", way=way, rows=rows, seconds=sorted(taken)[1], longest=max(taken))
        del decoder
        free_memory()


def _transformers(stage: Stage, config: Any, grid: list[tuple[int, int]], steps: int) -> None:
    """`generate` on a bare model: no adapter and no logprobs, so less work than ours."""
    model = random_model(config, stage.device, stage.dtype, "sdpa").eval()
    for rows, context in grid:
        if stage.left < 0:
            stage.tell(kind="skipped", way="generate", rows=rows, context=context, why="no time was left")
            continue
        try:
            ids = torch.randint(config.vocab_size, (rows, context), device=stage.device)

            def generate(count: int, ids: torch.Tensor = ids) -> None:
                with torch.no_grad():
                    model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        max_new_tokens=count,
                        min_new_tokens=count,
                        do_sample=True,
                        pad_token_id=0,
                    )

            generate(2)
            short, long = timed(lambda: generate(2)), timed(lambda: generate(2 + steps))
            rate = rows * steps / max(1e-9, long - short)
            stage.tell(kind="decode", way="generate", rows=rows, context=context, tokens_per_second=rate)
        except Exception as error:
            stage.tell(
                kind="failed", way="generate", rows=rows, why=f"{type(error).__name__}: {error}"[:2000]
            )
        free_memory()
    _generate_batch(stage, model, config, grid, steps)


def _generate_batch(stage: Stage, model: Any, config: Any, grid: list[tuple[int, int]], steps: int) -> None:
    rows, context = grid[-1]
    try:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        prompts = torch.randint(config.vocab_size, (rows, context)).tolist()
        model.generation_config.eos_token_id = None
        asked = GenerationConfig(max_new_tokens=steps, do_sample=True, eos_token_id=None, pad_token_id=0)
        # Left alone it takes whatever memory there is.
        blocks = 2 * rows * (-(-(context + steps) // 32))
        batching = ContinuousBatchingConfig(
            block_size=32,
            num_blocks=blocks,
            max_batch_tokens=4096 if stage.full else 256,
            use_cuda_graph=stage.device == "cuda",
        )
        seconds = timed(
            lambda: model.generate_batch(
                prompts, generation_config=asked, continuous_batching_config=batching, progress_bar=False
            )
        )
        stage.tell(
            kind="decode",
            way="generate_batch",
            rows=rows,
            context=context,
            tokens_per_second=rows * steps / seconds,
            note="with its prefill",
        )
    except Exception as error:
        stage.tell(
            kind="failed", way="generate_batch", rows=rows, why=f"{type(error).__name__}: {error}"[:2000]
        )
