"""How likely the tokens of a prompt are: vLLM's `prompt_logprobs`, by which one server is another's teacher."""

from __future__ import annotations

import torch

from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.train.forward import logit_shape
from hone_worker.train.token_logprobs import token_logprobs


def prompt_logprobs(base: Base, weights: LoraWeights | None, ids: list[int]) -> list[float]:
    """Of every token but the first, at temperature 1 as with vLLM. One forward, on the compute thread."""
    tokens = torch.tensor(ids, device=base.device)
    with torch.no_grad(), base.router.single(weights):
        hidden = base.model.base_model(input_ids=tokens[None], use_cache=False).last_hidden_state[0, :-1]
        softcap, scale = logit_shape(base.model.config)
        found, _ = token_logprobs(
            hidden,
            base.model.get_output_embeddings(),
            tokens[1:],
            torch.ones(len(hidden), device=base.device),
            softcap=softcap,
            scale=scale,
        )
    values: list[float] = found.tolist()
    return values
