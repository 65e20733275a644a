"""A short trial of the GPU's flash calls against SDPA under a mask, on the card, the torch and the heads at hand.

torch's own users reach these kernels through other functions, so that a release may change what they take. Trained
with a wrong gradient a policy only learns badly; a trial of milliseconds when the base is loaded tells it at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hone_worker.packing.pack import pack
from hone_worker.packing.varlen import VarlenPlan, varlen_attention

#: Of the norm of what is right. bfloat16 rounds by .004; a mask or a scale that is wrong differs by tenths.
_LIMIT = 0.03


def varlen_fault(config: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with `varlen` for such a model here, in words; None where output and gradients agree."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    shared = int(getattr(text, "num_key_value_heads", None) or heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    try:
        found, wanted = _both(heads, shared, width, device, dtype)
    except Exception as error:
        return f"the flash kernel fails here: {error}"
    for name, one, other in zip(("output", "queries", "keys", "values"), found, wanted, strict=True):
        off = float((one.double() - other.double()).norm() / other.double().norm())
        if not off <= _LIMIT:
            return f"the flash kernel's {name} or their gradients are off by {off:.1%} here"
    return None


def _both(
    heads: int, shared: int, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of queries, keys and values, by the kernel and by SDPA in float32."""
    # A prompt of 70 with three answers, two of which share their first turn; and a chain beside them.
    turn = [*range(70), *range(100, 140)]
    rows = [turn + [200] * 90, turn + [300] * 20, [*range(70), 400, 401], list(range(500, 537))]
    layout = pack([np.array(row) for row in rows]).layout
    length = layout.trees[-1][1]
    random = torch.Generator().manual_seed(0)
    query, key, value, grad = (
        torch.randn(1, n, length, width, generator=random).to(device, dtype)
        for n in (heads, shared, shared, heads)
    )
    mask = torch.block_diag(*(layout.mask(low, high).int() for low, high in layout.trees)).bool().to(device)
    scale = width**-0.5
    plan = VarlenPlan.of(layout, device)

    def run(exact: bool) -> list[Tensor]:
        given = [(x.float() if exact else x).clone().requires_grad_() for x in (query, key, value)]
        if exact:
            keys, values = (x.repeat_interleave(heads // shared, 1) for x in given[1:])
            out = scaled_dot_product_attention(given[0], keys, values, attn_mask=mask, scale=scale)
        else:
            out = varlen_attention(given[0], given[1], given[2], plan, scale)
        return [out.detach(), *torch.autograd.grad(out, given, grad.to(out.dtype))]

    with torch.enable_grad():
        return run(exact=False), run(exact=True)
