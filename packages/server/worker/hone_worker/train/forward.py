"""The trainer's forward pass: a micro-batch through the model, logits at its trained tokens only."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.packing.pack import TreeLayout
from hone_worker.packing.transfer import on_device
from hone_worker.packing.tree_attention import trees
from hone_worker.process.faults import fault
from hone_worker.train.micro_batch import MicroBatch
from hone_worker.train.recompute import recomputed
from hone_worker.train.token_logprobs import token_logprobs


def logprobs(
    base: Base,
    weights: LoraWeights | None,
    micro_batch: MicroBatch,
    *,
    entropy_gradient: bool = False,
    recompute: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprob and entropy of every trained token of a micro-batch under `weights`; None is the bare base.

    With `recompute` the backward computes each layer's activations again: the same numbers in less memory.
    """
    device = base.device
    wanted = _read_hidden(base, weights, micro_batch, recompute=recompute)
    softcap, scale = logit_shape(base.model.config)
    return token_logprobs(
        wanted,
        base.model.get_output_embeddings(),
        on_device(micro_batch.target, device),
        on_device(micro_batch.temperature, device),
        softcap=softcap,
        scale=scale,
        entropy_gradient=entropy_gradient,
        chunk=base.paths.loss_rows,
        wide=base.paths.wide_products,
    )


def read_out(
    base: Base,
    weights: LoraWeights,
    head: torch.Tensor | None,
    micro_batch: MicroBatch,
    *,
    entropy_gradient: bool,
    recompute: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Logprobs and entropies as `logprobs` gives them; or, with a head, zeros, nothing, and [N] what the scalar head
    says at each place that the micro-batch reads. Then none of the base's logits are made."""
    if head is None:
        found = logprobs(base, weights, micro_batch, entropy_gradient=entropy_gradient, recompute=recompute)
        return *found, None
    wanted = _read_hidden(base, weights, micro_batch, recompute=recompute)
    scores = torch.nn.functional.linear(wanted.to(head.dtype), head)[:, 0]
    none = torch.zeros_like(scores.detach())
    return none, none.new_zeros(0), scores


def _read_hidden(
    base: Base, weights: LoraWeights | None, micro_batch: MicroBatch, *, recompute: bool
) -> torch.Tensor:
    """[N, H]: the last hidden state at each place that the micro-batch reads."""
    device = base.device
    column, layout = on_device(micro_batch.column, device), micro_batch.layout
    wanted = None
    if layout is not None and (base.paths.layer, base.paths.attention) == ("fused", "ranges"):
        # Where several tokens are predicted from. The last layer computes nothing else.
        wanted, column = torch.unique(column, return_inverse=True)
    hidden = hidden_states(
        base,
        weights,
        on_device(micro_batch.input_ids, device),
        on_device(micro_batch.position_ids, device),
        layout,
        wanted=wanted,
        recompute=recompute,
    )
    fault("worker.forward")
    if layout is None:
        return hidden[on_device(micro_batch.row, device), column]
    # Rollouts that share a prompt are predicted from the same place. The gradients of several are added
    # in order here; indexing with brackets would add them in whatever order the threads come.
    return hidden[0].index_select(0, column)


def unread_mask(device: torch.device) -> torch.Tensor | None:
    """On a GPU something for transformers to take for a finished mask, which nobody looks at in a packed row.

    Given none it looks through the positions for sequences side by side, and waits for the answer.
    """
    return None if device.type == "cpu" else torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=device)


def hidden_states(
    base: Base,
    weights: LoraWeights | None,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor | None,
    layout: TreeLayout | None,
    *,
    wanted: torch.Tensor | None = None,
    recompute: bool = False,
) -> torch.Tensor:
    """[rows, width, H] behind the last layer, before the head. Of a packed row the `wanted` tokens alone, for a base
    whose layers are fused."""
    with (
        base.router.single(weights),
        nullcontext() if layout is None else trees(layout, base.paths.attention, wanted),
        recomputed(base.model, base.router, weights) if recompute else nullcontext(),
    ):
        hidden: torch.Tensor = base.model.base_model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=None if layout is None else unread_mask(base.device),
            # With a cache transformers takes positions that start anew for nothing, and sequences see others.
            use_cache=False,
        ).last_hidden_state
    return hidden


def logit_shape(config: Any) -> tuple[float | None, float]:
    """What some families do to their logits after the head: Gemma caps them, Cohere and Granite scale them."""
    text = config.get_text_config()
    scale = float(getattr(text, "logit_scale", None) or 1.0)
    scale /= float(getattr(text, "logits_scaling", None) or 1.0)
    softcap = getattr(text, "final_logit_softcapping", None)
    return (None if softcap is None else float(softcap)), scale
