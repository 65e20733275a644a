"""Which of several ways each part of the work is computed by. They differ in speed and in rounding, never in meaning.

Every way is behind one switch, so that one run can measure all of them. Left alone, the switches follow the device.

`decode` belongs to the engine: it reads `base.paths.decode` once, when it is made, and takes "graph" as the wish to
replay a CUDA graph for the steps whose shape is captured; any other step goes the eager way, with the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args, get_type_hints

import torch

from hone_worker.base.products import wide_kernels
from hone_worker.process.errors import HoneWorkerError

Attention = Literal["auto", "ranges", "masked", "varlen", "flex"]
Lora = Literal["auto", "module", "joined"]
Layer = Literal["auto", "eager", "compiled", "fused"]
Decode = Literal["auto", "eager", "graph"]
Optimizer = Literal["auto", "foreach", "fused", "loop"]
Products = Literal["auto", "mkl", "onednn"]


@dataclass(frozen=True)
class ComputePaths:
    """What a user asks for. A base carries the `resolved` one, in which nothing is "auto" or None."""

    #: Packed trees: `ranges` is the processor's flash kernel, a call for each range; `varlen` one flash call for all
    #: ranges of a depth; `flex` one FlexAttention kernel; `masked` SDPA under a mask of each tree, the oracle.
    attention: Attention = "auto"
    #: Adapters in training: `module` in float32 for each layer, `joined` in the base's precision for all layers
    #: that read the same input.
    lora: Lora = "auto"
    #: What lies between a layer's matmuls as transformers wrote it, or through torch.compile, which needs a C compiler;
    #: or the whole layer as one function (`fused`): in float32 on a processor, for families that it knows.
    layer: Layer = "auto"
    decode: Decode = "auto"
    #: Rows of logits alive at once in the loss.
    loss_chunk: int | None = None
    #: AdamW and the clip of the gradient: a kernel for each tensor (`loop`), for lists of them, or one for all.
    optimizer: Optimizer = "auto"
    #: The library of the trainer's float32 products on a processor.
    products: Products = "auto"

    @property
    def wide_products(self) -> bool:
        return self.products == "onednn"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise _refused(
                    f"{name} is '{getattr(self, name)}', which is not one of {', '.join(allowed)}."
                )
        if self.loss_chunk is not None and self.loss_chunk < 1:
            raise _refused("loss_chunk is a number of rows, 1 or more.")

    @property
    def loss_rows(self) -> int:
        assert self.loss_chunk is not None, "the paths of a base are resolved"
        return self.loss_chunk

    @classmethod
    def parse(cls, text: str) -> ComputePaths:
        """From `attention=flex,lora=joined`."""
        given: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            if name not in _NAMES:
                raise _refused(f"there is no path '{name}'. There are {', '.join(_NAMES)}.")
            if name in given:
                raise _refused(f"{name} is given twice.")
            given[name] = value
        chunk = given.pop("loss_chunk", None)
        if chunk is not None and not chunk.isdecimal():
            raise _refused(f"loss_chunk is '{chunk}', which is not a number of rows.")
        return replace(cls(**given), loss_chunk=None if chunk is None else int(chunk))  # type: ignore[arg-type]

    def resolved(self, device: torch.device, dtype: torch.dtype) -> ComputePaths:
        """The same with the device's choice wherever nothing was asked for. Refuses what the device cannot do."""
        cuda = device.type == "cuda"
        if cuda and self.attention == "ranges":
            raise _refused(
                "attention=ranges is a kernel of processors. Take masked, varlen or flex on a GPU."
            )
        if not cuda and self.decode == "graph":
            raise _refused("decode=graph needs an NVIDIA GPU.")
        half = dtype in (torch.bfloat16, torch.float16)
        fusible = not cuda and dtype == torch.float32 and self.attention in ("auto", "ranges")
        fusible = fusible and self.lora in ("auto", "module")
        if self.layer == "fused" and not fusible:
            raise _refused(
                "layer=fused is for float32 on a processor, with attention=ranges and lora=module. Take layer=eager."
            )
        if cuda and self.attention == "varlen" and not half:
            raise _refused("attention=varlen takes bfloat16 on a GPU. Start with `--dtype bfloat16`.")
        exact = not cuda and dtype == torch.float32
        if self.products == "onednn" and not (exact and torch.backends.mkldnn.is_available()):
            raise _refused("products=onednn is for float32 on a processor.")
        attention = self.attention
        if attention == "auto":
            attention = "ranges" if not cuda else "varlen" if half else "masked"
        return ComputePaths(
            attention=attention,
            lora=self.lora if self.lora != "auto" else "joined" if cuda else "module",
            layer=self.layer if self.layer != "auto" else "fused" if fusible else "eager",
            decode="eager" if self.decode == "auto" else self.decode,
            loss_chunk=self.loss_chunk or (2048 if cuda else 256),
            optimizer=self.optimizer if self.optimizer != "auto" else "fused" if cuda else "loop",
            products=self.products
            if self.products != "auto"
            else "onednn"
            if exact and wide_kernels()
            else "mkl",
        )


_NAMES = tuple(field.name for field in fields(ComputePaths))
_CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(kind) for name, kind in get_type_hints(ComputePaths).items() if name != "loss_chunk"
}

#: The device decides everything.
AUTO = ComputePaths()


def _refused(message: str) -> HoneWorkerError:
    return HoneWorkerError(f"The compute paths are wrong: {message}", code="bad_option", param="paths")
