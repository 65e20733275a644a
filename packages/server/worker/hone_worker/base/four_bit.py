"""The base's linear layers in 4 bits: NF4 with quantised scales, as QLoRA has it (Dettmers et al., arXiv 2305.14314).

Blocks of 64 weights are 16 levels each times the block's largest weight, and these scales are held in 8 bits: 4.13 bits
a weight. Trainer and engine both compute with the matrix that this stands for, in the base's precision. It is made for
each matmul and let go of, so the served and the trained base are the same, and no matrix outlives its use.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hone_worker.base.bits import require_bitsandbytes


class FourBit:
    """[out, in] in NF4. The packed bytes are the layer's parameter; here is what makes numbers of them."""

    def __init__(self, packed: Tensor, state: Any, functional: Any) -> None:
        self.packed = packed
        self.state = state
        self._functional = functional

    def matrix(self) -> Tensor:
        """A new tensor, in the type that the weight had."""
        matrix: Tensor = self._functional.dequantize_4bit(self.packed, self.state)
        return matrix

    @property
    def scale_bytes(self) -> int:
        """What is held beside the packed bytes, which count as the model's parameters."""
        tensors = (self.state.absmax, self.state.offset, self.state.state2.absmax)
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def matrix_bytes(self) -> int:
        """Of the matrix, while it is used."""
        return int(self.state.shape.numel()) * int(self.state.dtype.itemsize)


def pack_linear_layers(model: nn.Module, device: torch.device) -> None:
    """Packs every linear layer but the output head, one at a time on its device: the whole need not fit there."""
    functional = require_bitsandbytes("quantize nf4", "quantize").functional
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear) or module is head or path.split(".")[-1] == "lm_head":
            continue
        with torch.no_grad():
            weight = module.weight.detach().to(device)
            packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        module.weight = nn.Parameter(packed, requires_grad=False)
        # No tensor of its own to torch, so that nothing converts it with the model.
        module.__dict__["four_bit"] = FourBit(packed, state, functional)


def four_bit_of(layer: nn.Linear) -> FourBit | None:
    found: FourBit | None = layer.__dict__.get("four_bit")
    return found
