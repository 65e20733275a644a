"""The forward of Llama-shaped models for decoding: joined projections, joined adapters, few operations.

transformers' forward spends most of a decode step of a small model between its matmuls. Here the tokens of a
step lie in one row of tokens: those of the live rows first, then the pieces of prompts. Query, key and value
are one matmul, gate and up another, an adapter two small ones before each, whose result is the summand of the
large one. The weights are the model's own: its parameters become views of the joined tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hone_worker.base.lora import LoraWeights
from hone_worker.base.model import Base
from hone_worker.engine.cache import SlotCache, probe_shapes
from hone_worker.engine.forward import KEPT_STACKS, Forward, ModelForward, Step, additive, distinct
from hone_worker.engine.joined import Joined, Pair, add, linear
from hone_worker.engine.spans import Span, spans

log = logging.getLogger("hone_worker")

FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
ROPES = {"default", "linear", "llama3", "yarn"}
#: Largest mean difference of log probabilities from transformers' forward, by the base's precision.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


@dataclass(frozen=True)
class LeanLayer:
    before: nn.Module
    qkv: Joined
    heads: Tensor | None  # [query heads + key heads, dim]: the weights of their norms
    head_eps: float
    out: Joined
    after: nn.Module
    gate_up: Joined
    down: Joined
    scale: float


class LeanStack:
    """Some adapters beside one another, for every joined layer; ranks of other rows' adapters are gated off."""

    def __init__(self, adapters: Sequence[LoraWeights], layers: Sequence[LeanLayer], base: Base) -> None:
        self.adapters = tuple(adapters)
        ranks = [a.spec.r for a in adapters]
        table = torch.zeros(len(ranks) + 1, sum(ranks))
        start = 0
        for number, rank in enumerate(ranks):
            table[number, start : start + rank] = 1
            start += rank
        # The last row is zero, and index −1 (the bare base) selects it.
        self.table = table.to(base.device, base.dtype)
        self.pairs = [
            tuple(self._pair(joined, base) for joined in (layer.qkv, layer.out, layer.gate_up, layer.down))
            for layer in layers
        ]

    def _pair(self, joined: Joined, base: Base) -> Pair | None:
        paths = [layer.path for layer in joined.layers]
        if not any(path in adapter.tensors for adapter in self.adapters for path in paths):
            return None
        ranks = sum(a.spec.r for a in self.adapters)
        outer, inner = joined.shape
        a_all = torch.zeros(ranks * len(paths), inner, dtype=base.dtype, device=base.device)
        b_all = torch.zeros(ranks * len(paths), outer, dtype=base.dtype, device=base.device)
        row = column = 0
        for layer in joined.layers:
            for adapter in self.adapters:
                if layer.path in adapter.tensors:
                    a, b = adapter.tensors[layer.path]
                    a_all[row : row + adapter.spec.r] = a
                    b_all[row : row + adapter.spec.r, column : column + layer.out_features] = (
                        b.t() * adapter.spec.scale
                    )
                row += adapter.spec.r
            column += layer.out_features
        return a_all.t(), b_all

    def gates(self, places: Tensor) -> list[Tensor | None]:
        """Per number of joined layers, what a token multiplies its rank activations with."""
        one = self.table[places]
        return [None] + [one.repeat(1, count) for count in (1, 2, 3)]


Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class LiveRows(Protocol):
    """The rows of a decode step as tensors of a fixed size; those that only fill it up go to a spare row."""

    cache: SlotCache
    ids: Tensor  # [rows]
    positions: Tensor  # [rows]
    rows: Tensor  # [rows]: of the cache
    pairs: Sequence[Sequence[Pair | None]]
    gates: list[Tensor | None]

    def attention(self, dtype: torch.dtype, key_heads: int) -> Attend:
        """What all layers attend with: query [rows, heads, dim], all keys, all values, scale."""
        ...


class LeanForward:
    def __init__(self, base: Base) -> None:
        self.base = base
        model = base.model
        config = model.config.get_text_config()
        body = model.get_decoder()
        self._embed = body.embed_tokens
        self._rotary = body.rotary_emb
        self._norm = body.norm
        self._head: nn.Module = model.get_output_embeddings()
        self.query_heads = int(config.num_attention_heads)
        self.key_heads = int(config.num_key_value_heads)
        self.layers = [self._layer(layer) for layer in body.layers]
        self.dim = int(self.layers[0].out.shape[1]) // self.query_heads
        # Rotation as `x · cos + swapped halves of x · sin`: the sign that one half needs lies in the sine.
        half = torch.ones(self.dim // 2, device=base.device)
        self._sign = torch.cat([-half, half])
        self.no_pairs: list[tuple[Pair | None, ...]] = [(None,) * 4 for _ in self.layers]
        self._stacks: dict[tuple[int, ...], LeanStack] = {}

    def _layer(self, layer: Any) -> LeanLayer:
        attention, mlp = layer.self_attn, layer.mlp
        heads = None
        eps = 0.0
        if hasattr(attention, "q_norm"):
            heads = torch.cat(
                [
                    attention.q_norm.weight.data.expand(self.query_heads, -1),
                    attention.k_norm.weight.data.expand(self.key_heads, -1),
                ]
            ).contiguous()
            eps = attention.q_norm.variance_epsilon
        return LeanLayer(
            before=layer.input_layernorm,
            qkv=Joined.of(attention.q_proj, attention.k_proj, attention.v_proj),
            heads=heads,
            head_eps=eps,
            out=Joined.of(attention.o_proj),
            after=layer.post_attention_layernorm,
            gate_up=Joined.of(mlp.gate_proj, mlp.up_proj),
            down=Joined.of(mlp.down_proj),
            scale=float(attention.scaling),
        )

    def forget(self) -> None:
        self._stacks.clear()

    def run(self, step: Step) -> Tensor | None:
        live, cache = step.live, step.cache
        rows, positions, ids = self._laid_out(step)
        real = self._without_padding(step)
        if real is not None:
            rows, places = rows[real], positions[real]
        else:
            places = positions
        pairs, gates = self._adapters(step)
        live_mask, piece_mask = self._masks(step)
        hidden = self._embed(ids)
        cos, sin = self._rotary(hidden, positions.unsqueeze(0))
        turn = cos[0].unsqueeze(1), (sin[0] * self._sign).to(sin.dtype).unsqueeze(1)
        for number, layer in enumerate(self.layers):
            of_qkv = pairs[number][0]
            qkv = linear(layer.qkv, _rms(layer.before, hidden), of_qkv, gates[3])
            query, key, value = self._heads(layer, qkv, turn)
            if real is not None:
                key, value = key[real], value[real]
            keys, values = cache.write(number, rows, places, key, value)
            if number == len(self.layers) - 1:
                # Pieces of prompts only had to leave their keys and values.
                if not live:
                    return None
                hidden = hidden[:live]
                gates = [None if gate is None else gate[:live] for gate in gates]
            mixed = hidden.new_empty(hidden.shape[0], query.shape[1], self.dim)
            if live and live_mask is not None:
                for span in step.spans:
                    of_span = slice(span.start, span.end)
                    mixed[of_span] = self._attend_live(layer, keys, values, query[of_span], span, live_mask)
            if hidden.shape[0] > live:
                mixed[live:] = self._attend_pieces(layer, keys, values, query[live:], step, piece_mask)
            hidden = self._behind(layer, hidden, mixed, pairs[number], gates)
        logits: Tensor = self._head(_rms(self._norm, hidden))
        return logits

    def decode(self, step: LiveRows) -> Tensor:
        """[rows, vocab]: a token of every row, from tensors alone, so that it can be recorded and run again."""
        hidden = self._embed(step.ids)
        cos, sin = self._rotary(hidden, step.positions.unsqueeze(0))
        turn = cos[0].unsqueeze(1), (sin[0] * self._sign).to(sin.dtype).unsqueeze(1)
        attend = step.attention(self.base.dtype, self.key_heads)
        for number, layer in enumerate(self.layers):
            of_qkv = step.pairs[number][0]
            qkv = linear(layer.qkv, _rms(layer.before, hidden), of_qkv, step.gates[3])
            query, key, value = self._heads(layer, qkv, turn)
            keys, values = step.cache.write(number, step.rows, step.positions, key, value)
            mixed = attend(query, keys, values, layer.scale)
            hidden = self._behind(layer, hidden, mixed, step.pairs[number], step.gates)
        logits: Tensor = self._head(_rms(self._norm, hidden))
        return logits

    def _behind(
        self,
        layer: LeanLayer,
        hidden: Tensor,
        mixed: Tensor,
        pairs: Sequence[Pair | None],
        gates: Sequence[Tensor | None],
    ) -> Tensor:
        """What a layer does after its attention [tokens, heads, dim]."""
        _, of_out, of_gate_up, of_down = pairs
        hidden = add(hidden, layer.out, mixed.flatten(1), of_out, gates[1])
        gate, up = linear(layer.gate_up, _rms(layer.after, hidden), of_gate_up, gates[2]).chunk(2, dim=1)
        return add(hidden, layer.down, F.silu(gate).mul_(up), of_down, gates[1])

    def _laid_out(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Row of the cache, position and id of every token: those of the live rows, then the pieces."""
        device = self.base.device
        rows = torch.arange(step.live, device=device)
        if not step.piece_rows:
            return rows, step.positions, step.ids
        pieces = torch.tensor(step.piece_rows, device=device)
        rows = torch.cat([rows, pieces.repeat_interleave(step.piece_ids.shape[1])])
        positions = torch.cat([step.positions, step.piece_positions.flatten()])
        return rows, positions, torch.cat([step.ids, step.piece_ids.flatten()])

    def _without_padding(self, step: Step) -> Tensor | None:
        """The tokens to keep, None for all: where padding would lie a live row may write in this very step."""
        width = step.piece_ids.shape[1] if step.piece_rows else 0
        if all(count == width for count in step.piece_counts):
            return None
        starts = range(step.live, step.live + width * len(step.piece_rows), width)
        kept = [*range(step.live)]
        for start, count in zip(starts, step.piece_counts, strict=True):
            kept += range(start, start + count)
        return torch.tensor(kept, device=self.base.device)

    def _masks(self, step: Step) -> tuple[Tensor | None, Tensor | None]:
        places = torch.arange(max(step.length, step.piece_length), device=self.base.device)
        live = piece = None
        if step.live:
            seen = places[: step.length] <= step.positions.unsqueeze(1)
            live = additive(seen, self.base.dtype).repeat_interleave(self.key_heads, 0).unsqueeze(1)
        if step.piece_rows:
            seen = places[: step.piece_length] <= step.piece_positions.unsqueeze(-1)
            # Once for each query head that shares a key head: they become query positions.
            shared = self.query_heads // self.key_heads
            piece = additive(seen, self.base.dtype).repeat(1, shared, 1).unsqueeze(1)
        return live, piece

    def _adapters(self, step: Step) -> tuple[list[tuple[Pair | None, ...]], list[Tensor | None]]:
        """What the adapters of this step add to each layer, and the gates of its tokens by joined layers."""
        members, places = distinct([*step.adapters, *step.piece_adapters])
        if not members:
            return self.no_pairs, [None] * 4
        stack = self.stack(members)
        if len(members) == 1 and min(places) == 0:
            # One policy for all, as nearly always: nothing to gate.
            return stack.pairs, [None] * 4
        width = step.piece_ids.shape[1] if step.piece_rows else 1
        index = places[: step.live] + [p for p in places[step.live :] for _ in range(width)]
        return stack.pairs, stack.gates(torch.tensor(index, device=self.base.device))

    def stack(self, members: Sequence[LoraWeights]) -> LeanStack:
        key = tuple(id(a) for a in members)
        # A stack holds its adapters, so their ids cannot be given to others while it is kept.
        stack = self._stacks.pop(key, None) or LeanStack(members, self.layers, self.base)
        self._stacks[key] = stack
        while len(self._stacks) > KEPT_STACKS:
            self._stacks.pop(next(iter(self._stacks)))
        return stack

    def _heads(
        self, layer: LeanLayer, qkv: Tensor, turn: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[tokens, heads, dim] of queries, keys and values; the first two normed where the family does, and turned."""
        tokens = qkv.shape[0]
        heads = qkv.view(tokens, self.query_heads + 2 * self.key_heads, self.dim)
        both = heads[:, : self.query_heads + self.key_heads]
        if layer.heads is not None:
            both = F.rms_norm(both, (self.dim,), eps=layer.head_eps) * layer.heads
        cos, sin = turn
        turned = (both * cos).addcmul_(both.roll(self.dim // 2, -1), sin)
        return turned[:, : self.query_heads], turned[:, self.query_heads :], heads[:, -self.key_heads :]

    def _attend_live(
        self, layer: LeanLayer, keys: Tensor, values: Tensor, query: Tensor, span: Span, mask: Tensor
    ) -> Tensor:
        """The query heads of a key head become its query positions, so that no key is copied."""
        heads = slice(span.start * self.key_heads, span.end * self.key_heads)
        # By hand: the fused attention is made for many queries and takes twice as long for a few.
        keys = keys.flatten(0, 1)[heads, :, : span.length]
        values = values.flatten(0, 1)[heads, : span.length]
        beside = query.reshape(keys.shape[0], -1, self.dim)
        scores = torch.baddbmm(mask[heads, :, : span.length], beside, keys, alpha=layer.scale)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        return torch.bmm(weights, values).view(query.shape[0], self.query_heads, self.dim)

    def _attend_pieces(
        self, layer: LeanLayer, keys: Tensor, values: Tensor, query: Tensor, step: Step, mask: Tensor | None
    ) -> Tensor:
        count, width = step.piece_ids.shape
        shared = self.query_heads // self.key_heads
        if count == 1:
            chosen = slice(step.piece_rows[0], step.piece_rows[0] + 1)
            keys, values = keys[chosen], values[chosen]
        else:
            keys, values = keys[step.piece_rows], values[step.piece_rows]
        # [rows, width, key heads, shared, dim] → [rows, key heads, shared · width, dim]
        beside = query.view(count, width, self.key_heads, shared, self.dim).permute(0, 2, 3, 1, 4)
        out = F.scaled_dot_product_attention(
            beside.reshape(count, self.key_heads, shared * width, self.dim),
            keys[..., : step.piece_length].transpose(2, 3).contiguous(),
            values[:, :, : step.piece_length],
            attn_mask=mask,
            scale=layer.scale,
        )
        out = out.view(count, self.key_heads, shared, width, self.dim).permute(0, 3, 1, 2, 4)
        return out.reshape(count * width, self.query_heads, self.dim)


def _rms(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def forward_of(base: Base) -> Forward:
    """The lean forward if it knows this base and agrees with the model's own forward; else the model's own."""
    general = ModelForward(base)
    config = base.model.config.get_text_config()
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if config.model_type not in FAMILIES or rope not in ROPES or config.hidden_act != "silu":
        return general
    try:
        lean = LeanForward(base)
        difference = _difference(base, lean, general)
    except (AttributeError, RuntimeError, TypeError, AssertionError):
        log.warning("this base is not built as its family is; decoding with its own forward", exc_info=True)
        return general
    if not difference <= TOLERANCE.get(base.dtype, 0.1):
        log.warning("the lean forward differs from the model's by %g; decoding with the model's", difference)
        return general
    return lean


def _difference(base: Base, lean: Forward, general: Forward) -> float:
    """Mean difference of log probabilities: two prompts in pieces, then a token after each."""
    width = min(24, base.max_model_len - 2)
    ids = torch.arange(3, 3 + 2 * width, device=base.device).view(2, width) * 7 % base.vocab_size
    found = []
    with torch.inference_mode():
        for forward in (lean, general):
            cache = SlotCache(probe_shapes(base.model, base.device), base.device)
            cache.resize(2, width + 1, [])
            for start, end in ((0, width // 2), (width // 2, width)):
                places = torch.arange(start, end, device=base.device).expand(2, -1)
                forward.run(_pieces(cache, ids[:, start:end], places, end))
            one = torch.full((2,), width, device=base.device)
            step = _pieces(cache, ids[:, :0], one[:0].expand(2, 0), 0)
            step.live, step.ids, step.positions = 2, ids[:, -1], one
            step.adapters = [None, None]
            step.spans = spans([width + 1] * 2)
            step.piece_rows, step.piece_counts, step.piece_adapters = [], [], []
            logits = forward.run(step)
            assert logits is not None
            found.append(logits.float().log_softmax(-1))
    return float((found[0] - found[1]).abs().mean())


def _pieces(cache: SlotCache, ids: Tensor, positions: Tensor, length: int) -> Step:
    none = torch.zeros(0, dtype=torch.long, device=ids.device)
    return Step(
        cache=cache,
        live=0,
        ids=none,
        positions=none,
        adapters=[],
        spans=[],
        piece_rows=[0, 1],
        piece_counts=[ids.shape[1]] * 2,
        piece_length=length,
        piece_ids=ids,
        piece_positions=positions,
        piece_adapters=[None, None],
    )
