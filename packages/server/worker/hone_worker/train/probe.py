"""What an engine has to answer with a policy: logprobs that the trainer computes for a short text of fixed tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import DTYPES, Base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.forward import logit_shape
from hone_worker.train.policy_cache import own
from hone_worker.train.token_logprobs import token_logprobs

#: Tokens of the prompt: enough that a wrong weight of any layer shows, few enough for a forward of milliseconds.
LENGTH = 12
#: Steps through the vocabulary in turns of the golden ratio, so that the ids lie all over it.
STRIDE = 0.6180339887498949


def probe(base: Base, folder: Path) -> dict[str, Any]:
    """Of the adapter in a folder, which is read as an engine reads it. On the compute thread.

    It takes no random number and leaves the trainer's policy and its gradients alone. Raises `bad_adapter` for one that
    does not fit the base or holds values that are not finite.
    """
    ids = probe_ids(base)
    answers = {
        "policy": _answer(base, adapter_weights(base, folder), ids),
        "base": _answer(base, None, ids),
    }
    for value in (*answers["policy"]["prompt"], answers["policy"]["next"]):
        if not math.isfinite(value):
            raise HoneWorkerError(
                "Not a usable adapter: what the model computes with it is not a finite number.",
                code="bad_adapter",
            )
    dtype = next(name for name, dtype in DTYPES.items() if dtype == base.dtype)
    return {"dtype": dtype, "ids": ids, **answers}


def adapter_weights(base: Base, folder: Path) -> LoraWeights:
    """As an engine reads them. On the compute thread."""
    read = read_adapter(folder, base.model)
    tensors = {path: (own(base, a), own(base, b)) for path, (a, b) in sorted(read.tensors.items())}
    return LoraWeights(read.spec, tensors)


def probe_ids(base: Base) -> list[int]:
    """Ordinary tokens, the same for the same base: none that a tokenizer adds, which may mean something to an engine."""
    added = {*base.tokenizer.get_added_vocab().values(), *base.tokenizer.all_special_ids}
    size = min(base.vocab_size, len(base.tokenizer))
    ids: list[int] = []
    for turn in range(1, size + 1):
        token = int(turn * STRIDE % 1 * size)
        if token not in added and token not in ids:
            ids.append(token)
        if len(ids) == min(LENGTH, base.max_model_len - 1):
            break
    return ids


def _answer(base: Base, weights: LoraWeights | None, ids: list[int]) -> dict[str, Any]:
    """Logprobs at temperature 1: of each token but the first, and of the likeliest one to come."""
    tokens = torch.tensor(ids, device=base.device)
    head = base.model.get_output_embeddings()
    softcap, scale = logit_shape(base.model.config)
    with torch.no_grad(), base.router.single(weights):
        hidden = base.model.base_model(input_ids=tokens[None], use_cache=False).last_hidden_state[0]
        # Neither a scale nor a cap changes which is the likeliest.
        likeliest = head(hidden[-1:]).argmax(-1)
        found, _ = token_logprobs(
            hidden,
            head,
            torch.cat([tokens[1:], likeliest]),
            torch.ones(len(hidden), device=base.device),
            softcap=softcap,
            scale=scale,
        )
    *prompt, after = found.tolist()
    return {"prompt": prompt, "next": after}
