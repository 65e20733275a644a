"""The base model: loaded once, frozen, shared by the engine and the trainer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hone_worker.base.bits import require_bitsandbytes
from hone_worker.base.compute_paths import AUTO, ComputePaths
from hone_worker.base.default_dtype import default_dtype
from hone_worker.base.device import require_device
from hone_worker.base.four_bit import pack_linear_layers
from hone_worker.base.fused_layers import fuse_layers, own_layers
from hone_worker.base.joined_lora import JoinedLora
from hone_worker.base.lora import LoraRouter, inject
from hone_worker.packing.attention import register
from hone_worker.packing.compiled_parts import compile_parts
from hone_worker.packing.trial import varlen_fault
from hone_worker.process.errors import HoneWorkerError

log = logging.getLogger("hone_worker")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Quantize = Literal["nf4"]
ATTENTION_KINDS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Base:
    model: Any  # for causal language modelling, of transformers: what it consists of differs by family
    tokenizer: Any
    router: LoraRouter
    name: str
    max_model_len: int
    device: torch.device
    dtype: torch.dtype
    paths: ComputePaths  # resolved for the device

    @property
    def weight_bytes(self) -> int:
        """What the base takes of its device's memory."""
        packed = (layer.four_bit for layer in self.router.layers.values())
        scales = sum(one.scale_bytes for one in packed if one is not None)
        return scales + sum(parameter.nbytes for parameter in self.model.parameters())

    @property
    def parameters(self) -> int:
        """Numbers that the base consists of, however many bits each is held in."""
        packed = (layer.four_bit for layer in self.router.layers.values())
        more = sum(one.state.shape.numel() - one.packed.numel() for one in packed if one is not None)
        return int(more + sum(parameter.numel() for parameter in self.model.parameters()))

    @property
    def unpacked_bytes(self) -> int:
        """The largest matrix that is made of 4 bits and let go of. 0 for a base that is not packed."""
        packed = (layer.four_bit for layer in self.router.layers.values())
        return max((one.matrix_bytes for one in packed if one is not None), default=0)

    @property
    def vocab_size(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])


def load_base(
    base: str,
    *,
    device: str = "cpu",
    dtype: str | torch.dtype | None = "float32",
    served_name: str | None = None,
    max_model_len: int | None = None,
    paths: ComputePaths = AUTO,
    quantize: Quantize | None = None,
) -> Base:
    """A folder or hub id, from safetensors only and never with code of the model's own. `dtype` None: as fits."""
    target = require_device(device)
    if quantize is not None:
        # Before a base is loaded that takes minutes.
        require_bitsandbytes(f"quantize {quantize}", "quantize")
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        length = _length_limit(config, max_model_len)
        given = DTYPES[dtype] if isinstance(dtype, str) else dtype
        wanted = given or default_dtype(config, target)
        model: Any = AutoModelForCausalLM.from_pretrained(
            base,
            config=config,
            dtype=wanted,
            attn_implementation=register(),
            use_safetensors=True,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        message = f"Cannot load the base '{base}': {error}"
        raise HoneWorkerError(message, code="bad_base", status=500) from error
    if quantize is not None:
        pack_linear_layers(model, target)
    model.to(target)
    return wrap_base(model, tokenizer, served_name or _default_name(base), length, paths)


def wrap_base(model: Any, tokenizer: Any, name: str, max_model_len: int, paths: ComputePaths = AUTO) -> Base:
    """Freezes a loaded model and injects LoRA."""
    model.eval()
    model.requires_grad_(False)
    weight = model.get_input_embeddings().weight
    chosen = paths.resolved(weight.device, weight.dtype)
    if paths.attention == "auto" and chosen.attention == "varlen":
        fault = varlen_fault(model.config, weight.device, weight.dtype)
        if fault is not None:
            log.warning("packed trees go through attention=masked, which is slow: %s", fault)
            chosen = replace(chosen, attention="masked")
    own_layers(model)
    router = inject(model)
    if chosen.lora == "joined":
        router.joined = JoinedLora(router)
    if chosen.layer == "compiled":
        compile_parts(model)
    elif chosen.layer == "fused" and not fuse_layers(model, router, wide=chosen.wide_products):
        if paths.layer == "fused":
            raise HoneWorkerError(
                "The compute paths are wrong: layer=fused does not know the layers of this base. Take layer=eager.",
                code="bad_option",
                param="paths",
            )
        chosen = replace(chosen, layer="eager")
    return Base(model, tokenizer, router, name, max_model_len, weight.device, weight.dtype, chosen)


def _default_name(base: str) -> str:
    path = Path(base)
    return path.resolve().name if path.is_dir() else base


def _length_limit(config: Any, wanted: int | None) -> int:
    """The longest sequence to serve. A sliding window is an upper limit, because masks here are plain causal ones."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if not kinds <= ATTENTION_KINDS:
        message = (
            f"This base has {sorted(kinds - ATTENTION_KINDS)} layers; only attention layers are supported."
        )
        raise HoneWorkerError(message, code="unsupported_base", status=500)
    if getattr(text, "attn_logit_softcapping", None):
        # No fused attention kernel applies it, and without it this is another model.
        message = (
            "This base caps its attention logits, which is not supported: every answer would be another."
        )
        raise HoneWorkerError(message, code="unsupported_base", status=500)
    limit = int(getattr(text, "max_position_embeddings", None) or 4096)
    window = getattr(text, "sliding_window", None)
    slides = "sliding_attention" in kinds or not getattr(text, "layer_types", None)
    if window and slides and getattr(text, "use_sliding_window", True) and window < limit:
        log.warning("this base has a sliding window of %d tokens; longer sequences are refused", window)
        limit = int(window)
    if wanted is None:
        return limit
    if not 2 <= wanted <= limit:
        message = f"--max-model-len must be from 2 to {limit} for this base."
        raise HoneWorkerError(message, code="bad_option", param="max_model_len")
    return wanted
