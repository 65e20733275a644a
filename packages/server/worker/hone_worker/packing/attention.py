"""SDPA, with two changes: rows of packed trees go their own way (tree_attention.py), and for decoding heads
that share keys are put side by side as queries.

For one token a row transformers' SDPA copies keys and values once per query head. Here the query heads of
a group become the query positions of their key head, so that nothing is copied. The numbers are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from hone_worker.packing.tree_attention import in_trees, tree_attention

NAME = "hone_sdpa"


def grouped_sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if in_trees():
        return tree_attention(query, key, value, scaling).transpose(1, 2).contiguous(), None
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    if length != 1 or heads == groups or attention_mask is None or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    beside = query.reshape(rows, groups, heads // groups, width)
    out = torch.nn.functional.scaled_dot_product_attention(
        beside, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return out.reshape(rows, 1, heads, value.shape[-1]), None


def _mask(*args: Any, **options: Any) -> Tensor | None:
    # The layout of a packed row says what the mask would, without a matrix of the row's length squared.
    return None if in_trees() else sdpa_mask(*args, **options)


def register() -> str:
    """Makes the implementation known to transformers; gives its name."""
    AttentionInterface.register(NAME, grouped_sdpa)
    AttentionMaskInterface.register(NAME, _mask)
    return NAME
