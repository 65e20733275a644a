"""A decoder layer of a Llama-shaped model as one function with a backward of its own, for packed rows on a processor.

Written as transformers has it, a layer is some sixty operations and as many in the backward, each of which reads and
writes all tokens, and an adapter adds three small matmuls to each large one. Here

- an adapter is added to a copy of the weight, which lives for one matmul: s·BA is as exact beside W in float32 as
  x(s·BA) is beside xW. The backward needs x Aᵀ and dy B for the adapter's own gradient and nothing more;
- the weights of the norms go into that copy as well, and two features that are turned together lie side by side in
  it, so that rotary positions are one multiplication of complex numbers. Queries and keys are permuted alike, which
  their products do not show;
- what it computes is scripted (layer_math.py), so that other threads' Python does not wait for it;
- rows go through a few hundred at a time (products.py), so that what lies between two matmuls stays in the processor's cache;
- what is cheap is computed again in the backward (norms, the gate's product) and not kept;
- the last layer computes what follows the attention for those tokens alone whose logits are read.

The switch is `ComputePaths.layer`. Models of other families go through transformers' layers, and so does everything
that is not a packed row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hone_worker.base.decoder_layers import decoder_layers
from hone_worker.base.fused_linears import Pair, Reader, ReaderGradient
from hone_worker.base.layer_math import (
    after_attention,
    after_attention_backward,
    project,
    project_backward,
    turn_heads,
    turn_heads_back,
)
from hone_worker.base.lora import LoraRouter, LoraWeights
from hone_worker.packing.kernel_ranges import Ranges
from hone_worker.packing.pack import pack
from hone_worker.packing.tree_attention import (
    Trees,
    active_trees,
    ranges_backward,
    ranges_forward,
    trees,
)

log = logging.getLogger("hone_worker")

FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
#: Those whose cosines and sines are the same for both halves of a head.
ROPES = {"default", "linear", "llama3", "yarn"}
#: Largest difference from the model's own hidden states, relative to their size.
TOLERANCE = 1e-4
#: Bytes of the widest thing between two matmuls that a piece of rows may have, and its fewest rows.
_PIECE_BYTES, _PIECE_ROWS = 768 * 1024, 256


@dataclass(frozen=True, eq=False)
class FusedLayer:
    qkv: Reader
    out: Reader
    gate_up: Reader
    down: Reader
    eps: tuple[float, float]  # of the norms before the attention and before the MLP
    head_norm: tuple[Tensor, float] | None  # weights of queries' and keys' heads, one after another; epsilon
    heads: int
    key_heads: int
    dim: int  # of a head
    scale: float
    last: bool
    wide: bool  # products.py

    @classmethod
    def of(cls, layer: Any, config: Any, *, last: bool, wide: bool) -> FusedLayer:
        attention, mlp = layer.self_attn, layer.mlp
        heads, key_heads = int(config.num_attention_heads), int(config.num_key_value_heads)
        dim = attention.q_proj.out_features // heads
        # Features i and i + dim/2 of a head are turned together.
        pairs = torch.arange(dim).view(2, -1).t().flatten()
        of_heads = [(torch.arange(count)[:, None] * dim + pairs).flatten() for count in (heads, key_heads)]
        head_norm = None
        if hasattr(attention, "q_norm"):
            weights = [attention.q_norm.weight.data[pairs]] * heads
            weights += [attention.k_norm.weight.data[pairs]] * key_heads
            head_norm = torch.cat(weights), float(attention.q_norm.variance_epsilon)
        before, after = layer.input_layernorm, layer.post_attention_layernorm
        return cls(
            qkv=Reader.of(
                (attention.q_proj, attention.k_proj, attention.v_proj), before.weight.data, (*of_heads, None)
            ),
            out=Reader.of((attention.o_proj,)),
            gate_up=Reader.of((mlp.gate_proj, mlp.up_proj), after.weight.data),
            down=Reader.of((mlp.down_proj,)),
            eps=(float(before.variance_epsilon), float(after.variance_epsilon)),
            head_norm=head_norm,
            heads=heads,
            key_heads=key_heads,
            dim=dim,
            scale=float(attention.scaling),
            last=last,
            wide=wide,
        )

    @property
    def readers(self) -> tuple[Reader, Reader, Reader, Reader]:
        return self.qkv, self.out, self.gate_up, self.down

    @property
    def turned(self) -> int:
        """Features of queries and keys, which come first of what `qkv` gives."""
        return (self.heads + self.key_heads) * self.dim

    def split(self, turned: Tensor, joined: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as [1, heads, N, dim]: views of what holds the first two, and of all three."""
        at = self.heads * self.dim
        parts = (turned[:, :at], turned[:, at : self.turned], joined[:, self.turned :])
        query, key, value = (
            part.view(len(part), -1, self.dim).transpose(0, 1).unsqueeze(0) for part in parts
        )
        return query, key, value

    def turns(self, active: Trees, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """By what queries and keys of each token are multiplied, and by what the backward does; once for all layers."""
        if active.turn is None:
            half = self.dim // 2
            turn = torch.complex(cos[0, :, :half], sin[0, :, :half])
            turn = turn.repeat(1, self.heads + self.key_heads)
            active.turn = turn, turn.conj().resolve_conj()
        return active.turn


def fuse_layers(model: nn.Module, router: LoraRouter, *, wide: bool) -> bool:
    """Packed rows go through fused layers from now on, if the model is one that they know and agree with."""
    config: Any = getattr(model.config, "get_text_config", lambda: model.config)()
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if (
        config.model_type not in FAMILIES
        or rope not in ROPES
        or getattr(config, "hidden_act", None) != "silu"
    ):
        return False
    layers: list[Any] = decoder_layers(model)
    try:
        made = [FusedLayer.of(layer, config, last=layer is layers[-1], wide=wide) for layer in layers]
        for layer, fused in zip(layers, made, strict=True):
            layer.forward = _forward(fused, layer.forward, router)
        difference = _difference(model, router, layers)
    except (AttributeError, RuntimeError, TypeError, AssertionError, ValueError):
        log.warning("this base is not built as its family is; training with its own layers", exc_info=True)
    else:
        if difference <= TOLERANCE:
            return True
        log.warning("fused layers differ from the model's by %g; training with its own", difference)
    own_layers(model)
    return False


def own_layers(model: nn.Module) -> None:
    """Lets the model's own layers compute, whatever was fused before."""
    for layer in decoder_layers(model):
        layer.__dict__.pop("forward", None)


def _forward(fused: FusedLayer, plain: Callable[..., Tensor], router: LoraRouter) -> Callable[..., Tensor]:
    def forward(hidden_states: Tensor, *args: Any, **named: Any) -> Tensor:
        active, turn = active_trees(), named.get("position_embeddings")
        if active is None or active.way != "ranges" or turn is None or not router.trains:
            return plain(hidden_states, *args, **named)
        active.calls += 1
        weights = router.trained
        wanted = active.wanted if fused.last else None
        masters = [side for reader in fused.readers for pair in reader.pairs(weights) for side in pair or ()]
        result: Tensor = _Layer.apply(
            *(hidden_states[0], fused, fused.turns(active, *turn)),
            *(active.wanted_ranges if fused.last else active.ranges, wanted, weights),
            *masters,
        )
        return result[None]

    return forward


def _difference(model: Any, router: LoraRouter, layers: list[Any]) -> float:
    """Of the hidden states behind the last layer: two short sequences that begin alike."""
    ids = torch.arange(3, 15) * 7 % int(model.get_input_embeddings().weight.shape[0])
    row = pack([ids.numpy(), torch.cat([ids[:5], ids[:6].flip(0)]).numpy()])
    found = []
    with torch.no_grad(), router.single(None):
        for fused in (True, False):
            own = [layer.__dict__.pop("forward") for layer in ([] if fused else layers)]
            with trees(row.layout):
                body = model.base_model(
                    input_ids=row.input_ids[None],
                    position_ids=row.position_ids[None],
                    attention_mask=None,
                    use_cache=False,
                )
            found.append(body.last_hidden_state)
            for layer, forward in zip(layers, own, strict=False):
                layer.forward = forward
    return float((found[0] - found[1]).abs().max() / found[1].abs().mean())


def _piece(width: int, size: int) -> int:
    """Rows of a piece whose widest row has so many numbers of so many bytes."""
    return max(_PIECE_ROWS, _PIECE_BYTES // (width * size))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: FusedLayer,
        turn: tuple[Tensor, Tensor],
        ranges: Ranges,
        wanted: Tensor | None,
        weights: LoraWeights | None,
        *masters: Tensor,
    ) -> Tensor:
        pairs = [reader.pairs(weights) for reader in layer.readers]
        scale = 1.0 if weights is None else weights.spec.scale
        tokens, size = len(x), x.element_size()

        wide = layer.wide
        matrix = layer.qkv.matrix(pairs[0], scale)
        joined, rms = project(x, matrix, layer.qkv.bias, layer.eps[0], _piece(len(matrix), size), wide)
        turned, head_rms = _turned(layer, joined, turn[0])
        query, key, value = layer.split(turned, joined)
        mixed, sums = ranges_forward(query, key, value, ranges, layer.scale)
        beside = mixed.transpose(1, 2).reshape(tokens, -1)

        onward, residual = beside, x
        if wanted is not None:
            onward, residual = beside.index_select(0, wanted), x.index_select(0, wanted)
        gate_up = layer.gate_up.matrix(pairs[2], scale)
        result, middle, middle_rms, gates_ups = after_attention(
            *(residual, onward, layer.out.matrix(pairs[1], scale), layer.out.bias, layer.eps[1]),
            *(gate_up, layer.gate_up.bias, layer.down.matrix(pairs[3], scale), layer.down.bias),
            *(_piece(len(gate_up), size), wide),
        )

        # Without a norm of the heads what was turned is the projections' own memory, and nothing else is needed of it.
        ctx.save_for_backward(
            *(x, rms, joined, turned, head_rms, mixed, sums, middle, middle_rms, turn[1], wanted),
            *(*gates_ups, *masters),
        )
        ctx.layer, ctx.ranges, ctx.weights, ctx.count = layer, ranges, weights, len(gates_ups)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # told once alone where a layer is computed again
        kept, gates_ups, masters = saved[:11], saved[11 : 11 + ctx.count], saved[11 + ctx.count :]
        x, rms, joined, turned, head_rms, mixed, sums, middle, middle_rms, back, wanted = kept
        layer: FusedLayer = ctx.layer
        weights: LoraWeights | None = ctx.weights
        scale = 1.0 if weights is None else weights.spec.scale
        left = iter(masters)
        pairs: list[list[Pair | None]] = [
            [None if pair is None else (next(left), next(left)) for pair in reader.pairs(weights)]
            for reader in layer.readers
        ]
        of_qkv, of_out, of_gate_up, of_down = gradients = [
            ReaderGradient(reader, mine, scale) for reader, mine in zip(layer.readers, pairs, strict=True)
        ]
        tokens, size, wide = len(x), x.element_size(), layer.wide
        grad = grad.contiguous()

        beside = mixed.transpose(1, 2).reshape(tokens, -1)
        onward = beside if wanted is None else beside.index_select(0, wanted)
        out_matrix, gate_up_matrix, down_matrix = (
            reader.matrix(mine, scale) for reader, mine in zip(layer.readers[1:], pairs[1:], strict=True)
        )
        d_onward, d_middle = after_attention_backward(
            *(grad, onward, middle, middle_rms, list(gates_ups), out_matrix, gate_up_matrix, down_matrix),
            *(of_out.adapters, of_gate_up.adapters, of_down.adapters),
            *(_piece(len(gate_up_matrix), size), wide),
        )
        if wanted is not None:
            # Each is named once, so that nothing is added and the order does not matter.
            d_onward = torch.zeros_like(beside).index_copy_(0, wanted, d_onward)
            d_middle = torch.zeros_like(x).index_copy_(0, wanted, d_middle)

        d_joined = torch.empty_like(joined)
        query, key, value = layer.split(turned, joined)
        d_mixed = d_onward.view(tokens, layer.heads, layer.dim).transpose(0, 1).unsqueeze(0)
        into = layer.split(d_joined, d_joined)
        ranges_backward(d_mixed, query, key, value, mixed, sums, ctx.ranges, layer.scale, into)
        _turn_back(layer, d_joined, joined, head_rms, back)

        to_x = ctx.needs_input_grad[0]
        qkv_matrix = layer.qkv.matrix(pairs[0], scale) if to_x else None
        project_backward(
            *(x, rms, d_joined, qkv_matrix, d_middle, of_qkv.adapters, _piece(joined.shape[1], size), wide)
        )
        of_masters = [side for gradient in gradients for side in gradient.result()]
        return d_middle if to_x else None, None, None, None, None, None, *of_masters


def _turned(layer: FusedLayer, joined: Tensor, turn: Tensor) -> tuple[Tensor, Tensor | None]:
    """Queries and keys, normed where the family does, at their positions; and 1 / rms of each head."""
    part = joined[:, : layer.turned]
    if layer.head_norm is None:
        _complex(part).mul_(turn)
        return part, None
    weight, eps = layer.head_norm
    return turn_heads(part, weight, eps, layer.dim, turn, _piece(part.shape[1], part.element_size()))


def _turn_back(
    layer: FusedLayer, d_joined: Tensor, joined: Tensor, head_rms: Tensor | None, back: Tensor
) -> None:
    """The gradient of `_turned`, in the place of the gradient of what it gives."""
    part = d_joined[:, : layer.turned]
    if layer.head_norm is None:
        _complex(part).mul_(back)
        return
    assert head_rms is not None
    most = _piece(part.shape[1], part.element_size())
    turn_heads_back(part, joined[:, : layer.turned], head_rms, layer.head_norm[0], layer.dim, back, most)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(1, (-1, 2)))
