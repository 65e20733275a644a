"""What a micro-batch takes of the memory, by measuring it, and what there is for it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from hone_worker.base.adapter_files import fresh_adapter
from hone_worker.base.decoder_layers import decoder_layers
from hone_worker.base.free_memory import free_bytes
from hone_worker.base.lora import LoraSpec, LoraWeights, default_targets
from hone_worker.base.model import Base
from hone_worker.packing.attention import NAME
from hone_worker.packing.pack import pack
from hone_worker.packing.tree_attention import obstacle
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.forward import hidden_states
from hone_worker.train.micro_batch import MicroBatch
from hone_worker.train.policy_cache import PolicyCache
from hone_worker.train.side_by_side import SideBySide
from hone_worker.train.token_logprobs import token_logprobs

Recompute = Literal["auto", "on", "off"]

#: Tokens of the two forwards whose difference tells what a token keeps.
PROBES = (32, 96)
#: A backward holds more than what was kept for it: gradients on their way, and what a layer computes at once.
BACKWARD = 1.2
#: Tensors of a chunk's logits that the loss has at once.
LOGITS = 4
#: Tensors as wide as the widest layer that a forward has at once where nothing is kept for a backward.
AT_HAND = 8
#: Of the free memory, what no micro-batch is planned to fill: allocators round up, and others allocate too.
SPARED = 0.1
#: Tokens of the micro-batch that `step_bytes` counts: the planner's default.
STEP_TOKENS = 16_384
#: Of a parameter of the adapter, in float32: the weight that is trained, its gradient, two moments.
PARAMETER_BYTES = 16


@dataclass(frozen=True)
class Kept:
    """Bytes that a token's activations take from the forward to the backward."""

    plain: float
    recomputed: float  # the inputs of all layers, and one layer's activations
    logits: int  # bytes of the loss's logits, a chunk at a time
    unpacked: int = 0  # bytes of a layer's matrix and a widened copy, where the base is held in 4 bits

    def of(self, tokens: int, recompute: bool) -> int:
        return (
            int(tokens * (self.recomputed if recompute else self.plain) * BACKWARD)
            + self.logits
            + self.unpacked
        )


class TrainerMemory:
    """What the trainer may take, for the life of the process."""

    def __init__(
        self,
        base: Base,
        *,
        recompute: Recompute = "auto",
        reserved: Callable[[], int] = lambda: 0,
        release_after_step: bool = False,
        side_by_side: SideBySide | None = None,
    ) -> None:
        """`reserved`: bytes of the free memory that others will take, such as the engine for keys and values.

        `release_after_step`: leaves the card to an engine that sleeps while a step trains.

        `side_by_side`: the threads of parts that are in memory at the same time; one at a time unless given.
        """
        self.base = base
        self.release_after_step = release_after_step
        self.recompute: Recompute = recompute
        self.reserved = reserved
        self.side_by_side = side_by_side or SideBySide()
        self.policies = PolicyCache(base)
        self._kept: dict[LoraSpec, Kept] = {}
        if recompute == "on" and not decoder_layers(base.model):
            raise HoneWorkerError(
                "This base does not say which of its layers can be computed again. Start without "
                "`--recompute on`, and plan smaller micro-batches (`maxTokensPerMicroBatch`).",
                code="bad_option",
                param="recompute",
            )

    def budget(self) -> int:
        """Bytes that a micro-batch may take now."""
        return max(0, int((free_bytes(self.base.device) - self.reserved()) * (1 - SPARED)))

    def looked_at(self, micro_batch: MicroBatch) -> int:
        """Bytes that a forward without a gradient is planned to hold at once: by counting, and rather too many."""
        base = self.base
        layers = base.router.layers.values()
        widest = max((max(layer.in_features, layer.out_features) for layer in layers), default=0)
        at_hand = micro_batch.input_ids.numel() * widest * AT_HAND * 4
        return at_hand + _logits_bytes(base) + 2 * base.unpacked_bytes

    def step_is_over(self) -> None:
        """Gives back what PyTorch's allocator keeps for its next use, where others want it meanwhile."""
        if self.release_after_step and self.base.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def kept(self, weights: LoraWeights) -> Kept:
        """Measured once for each shape of an adapter."""
        if weights.spec not in self._kept:
            self._kept[weights.spec] = measure(self.base, weights)
        return self._kept[weights.spec]

    @property
    def can_recompute(self) -> bool:
        return self.recompute != "off" and bool(decoder_layers(self.base.model))


def step_bytes(memory: TrainerMemory) -> int:
    """What a step takes besides the base, for an engine that shares the device.

    An adapter of rank 16 and one micro-batch of the planner's default size, its layers recomputed where they may be.
    With less, the trainer parts micro-batches.
    """
    base = memory.base
    spec = LoraSpec(target_modules=default_targets(base.model))
    weights = fresh_adapter(base.model, spec, 0).to(base.device).trainable()
    adapter = PARAMETER_BYTES * sum(tensor.numel() for tensor in weights.parameters())
    activations = memory.kept(weights).of(STEP_TOKENS, memory.can_recompute)
    if base.device.type == "cuda":
        # Whoever asks the driver what is free is to see it.
        torch.cuda.empty_cache()
    return adapter + activations


def _logits_bytes(base: Base) -> int:
    return LOGITS * base.paths.loss_rows * base.vocab_size * 4


def measure(base: Base, weights: LoraWeights) -> Kept:
    """What a forward with a gradient keeps for each token more, of which all are trained."""
    few, many = (_saved_bytes(base, weights, tokens) for tokens in PROBES)
    plain = (many - few) / (PROBES[1] - PROBES[0])
    logits = _logits_bytes(base)
    layers = len(decoder_layers(base.model))
    unpacked = 2 * base.unpacked_bytes
    if layers == 0:
        return Kept(plain, plain, logits, unpacked)
    config: Any = base.model.config.get_text_config()
    inputs = layers * config.hidden_size * base.dtype.itemsize
    return Kept(plain, inputs + plain / layers, logits, unpacked)


def _saved_bytes(base: Base, weights: LoraWeights, tokens: int) -> int:
    """Of all tensors that autograd saved and that are no weights, each memory counted once."""
    row = pack([np.arange(tokens) % base.vocab_size])
    packable = obstacle(base.model, NAME, base.max_model_len) is None
    input_ids, positions = row.input_ids.to(base.device), row.position_ids.to(base.device)
    own = {t.untyped_storage().data_ptr() for t in (*base.model.parameters(), *base.model.buffers())}
    own |= {t.untyped_storage().data_ptr() for t in weights.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            seen[memory.data_ptr()] = memory.nbytes()
        # The same memory without its history: a graph that keeps its own results is never let go of.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.enable_grad():
        hidden = hidden_states(
            base,
            weights,
            input_ids[None],
            positions[None] if packable else None,
            row.layout if packable else None,
        )
        logprob, _ = token_logprobs(
            hidden[0],
            base.model.get_output_embeddings(),
            input_ids,
            torch.ones(tokens, device=base.device),
            chunk=base.paths.loss_rows,
            wide=base.paths.wide_products,
        )
        # Alive until here, so that no memory is given out twice and counted once.
        del logprob, hidden
    return sum(seen.values())
