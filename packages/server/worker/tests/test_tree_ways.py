"""Every way to attend over packed trees against rows alone in float64: the same logprobs, the same gradients."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from test_packing import FAMILIES, adapter, family, forward_backward, micro_batches, random_forest
from torch.nn.attention.flex_attention import create_block_mask

from hone_worker.base.compute_paths import ComputePaths
from hone_worker.packing import flex, varlen
from hone_worker.packing.flex import FlexPlan, visible_blocks
from hone_worker.packing.pack import TreeLayout, pack
from hone_worker.packing.trial import varlen_fault
from hone_worker.packing.varlen import VarlenPlan

CPU = torch.device("cpu")
SEEDS = range(60)


def random_trees(seed: int) -> TreeLayout:
    """Deep ones, wide ones, single chains: few symbols make much shared."""
    random = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    symbols, longest = number(1, 3), number(2, 90)
    sequences = [
        torch.randint(symbols, (number(1, longest),), generator=random).numpy() for _ in range(number(1, 30))
    ]
    return pack(sequences).layout


def whole_mask(layout: TreeLayout, length: int) -> torch.Tensor:
    mask = torch.zeros(length, length, dtype=torch.bool)
    for low, high in layout.trees:
        mask[low:high, low:high] = layout.mask(low, high)
    return mask


def errors(found, wanted) -> float:
    places, values, gradient = found
    others, theirs, their_gradient = wanted
    assert places == others
    each = [(gradient[name] - other).norm() / other.norm() for name, other in their_gradient.items()]
    return float(max([((values - theirs).abs() / theirs.abs().clamp(min=1.0)).max(), *each]))


@pytest.mark.parametrize("way", ["ranges", "fused", "masked", "varlen", "flex"])
def test_more_than_two_hundred_trees(way, exact_rows, monkeypatch):
    base, weights, wanted = exact_rows
    if way == "fused":
        base = family("qwen3", num_hidden_layers=2)
        assert base.paths.layer == "fused"
    else:
        base = replace(base, paths=replace(base.paths, attention=way))
    # FlexAttention on a processor computes every pair of a row that is filled up: to less, here.
    monkeypatch.setattr(flex, "MULTIPLE", 16)
    monkeypatch.setattr(flex, "_BLOCK", 16)
    trees = 0
    for seed in SEEDS:
        packed = micro_batches(random_forest(seed), "tree")
        trees += len(packed[0].layout.trees)
        assert errors(forward_backward(base, weights, packed), wanted[seed]) <= 1e-5, seed
    assert trees >= 200


@pytest.fixture(scope="module")
def exact_rows():
    torch.set_num_threads(1)
    base = family("qwen3", num_hidden_layers=2, paths=ComputePaths(layer="eager"))
    exact = family("qwen3", torch.float64, num_hidden_layers=2)
    weights = adapter(base)
    wanted = [forward_backward(exact, weights, micro_batches(random_forest(seed), "rows")) for seed in SEEDS]
    return base, weights, wanted


@pytest.mark.parametrize("way", ["varlen", "flex"])
def test_other_families_and_precisions(way):
    """As many heads for keys as for queries; scales of one's own; bfloat16."""
    families = (
        ("gemma3", torch.float32, 1e-5),
        ("llama", torch.bfloat16, 3e-2),
        ("mistral", torch.float32, 1e-5),
    )
    for name, dtype, limit in families[:2] if way == "flex" else families:
        paths = ComputePaths(layer="eager")
        base = family(name, dtype, paths=paths, **({"num_key_value_heads": 4} if name == "mistral" else {}))
        weights, packed = adapter(base), micro_batches(random_forest(2), "tree")
        _, values, gradient = forward_backward(base, weights, packed)
        base = replace(base, paths=replace(base.paths, attention=way))
        _, found, other = forward_backward(base, weights, packed)
        assert (found - values).abs().max() <= limit * 10
        assert all((other[n] - g).norm() <= limit * 3 * g.norm() for n, g in gradient.items()), name


@pytest.mark.parametrize("chunk", range(10))
def test_flex_sees_what_the_tree_does_and_its_blocks_hold_it(chunk):
    for seed in range(chunk * 20, chunk * 20 + 20):
        layout = random_trees(seed)
        plan = FlexPlan.of(layout, CPU)
        length = layout.trees[-1][1]
        places = torch.arange(plan.length)
        seen = plan.mask.mask_mod(torch.tensor(0), torch.tensor(0), places[:, None], places)
        assert plan.length % flex.MULTIPLE == 0 and plan.length - length < flex.MULTIPLE
        assert torch.equal(seen[:length, :length], whole_mask(layout, length))
        # What fills the row up sees something, or its softmax would be no number; nothing sees it.
        assert torch.equal(seen[length:], places[length:, None] == places)
        if seed % 10:
            continue
        made = create_block_mask(plan.mask.mask_mod, None, None, plan.length, plan.length, device="cpu")
        for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
            assert torch.equal(getattr(plan.mask, name), getattr(made, name)), name
        assert torch.equal(plan.mask.to_dense(), made.to_dense())


def test_blocks_of_a_long_row_are_full_where_all_see_all():
    ends = torch.full((1024,), 1024)
    partial, full = visible_blocks(ends)
    assert torch.equal(partial, torch.eye(8, dtype=torch.bool))
    assert torch.equal(full, torch.ones(8, 8, dtype=torch.bool).tril(-1))


@pytest.mark.parametrize("seed", range(200))
def test_the_varlen_calls_cover_each_pair_that_is_seen_once(seed):
    layout = random_trees(seed)
    length = layout.trees[-1][1]
    plan = VarlenPlan.of(layout, CPU)
    count = torch.zeros(length, length, dtype=torch.int64)
    starts = plan.spans.starts.tolist()
    for low, high in pairwise(starts):
        count[low:high, low:high] += torch.ones(high - low, high - low, dtype=torch.int64).tril()
    assert plan.spans.longest == max(plan.spans.starts.diff())
    for level in plan.levels:
        assert len(level.query_places.unique()) == len(level.query_places)
        assert level.queries.longest == int(level.queries.starts.diff().max())
        assert level.keys.longest == int(level.keys.starts.diff().max())
        for at, above in zip(
            level.query_places.split(level.queries.starts.diff().tolist()),
            level.key_places.split(level.keys.starts.diff().tolist()),
            strict=True,
        ):
            count[at[:, None], above] += 1
    assert torch.equal(count, whole_mask(layout, length).long())
    # A level for each time that a chain is left: no more than the sequences halve.
    assert len(plan.levels) <= 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_the_trial_passes_kernels_that_are_right_and_tells_of_those_that_are_not(monkeypatch, name, dtype):
    config = FAMILIES[name]
    assert varlen_fault(config, CPU, dtype) is None
    forward, backward = varlen._forward_on_cpu, varlen._backward_on_cpu

    def all_causal(query, key, value, queries, keys, causal, scale):
        return forward(query, key, value, queries, keys, queries.longest == keys.longest, scale * 1.2)

    def own_sums(grad, query, key, value, out, lse, *rest):
        """A backward that takes no joined sums, but those of its own keys."""
        return backward(grad, query, key, value, out, forward(query, key, value, *rest)[1], *rest)

    def fails(*_given):
        raise RuntimeError("no kernel image")

    for place, broken, told in (
        ("_forward_on_cpu", all_causal, "off by"),
        ("_backward_on_cpu", own_sums, "queries.*off by"),
        ("_forward_on_cpu", fails, "no kernel image"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(varlen, place, broken)
            assert re.search(told, varlen_fault(config, CPU, dtype) or "")


def test_the_gpus_operators_take_what_they_are_given():
    """On tensors without memory torch runs its operators' own checks of arguments and gives shapes and precisions."""
    layout = pack(
        [torch.tensor(row).numpy() for row in ([1, 2, 3, 4], [1, 2, 5], [1, 2, 5, 6, 6], [9])]
    ).layout
    meta = torch.device("meta")
    plan = VarlenPlan.of(layout, meta)
    assert len(plan.levels) == 1 and plan.spans.starts.dtype == torch.int32
    query, key, value = (
        torch.empty(1, heads, layout.trees[-1][1], 64, dtype=torch.bfloat16, device=meta, requires_grad=True)
        for heads in (8, 2, 2)
    )
    out = varlen.varlen_attention(query, key, value, plan, 0.125)
    assert out.shape == query.shape and out.dtype == torch.bfloat16
    out.sum().backward()
    for given in (query, key, value):
        assert given.grad is not None and given.grad.shape == given.shape
    half = torch.empty(4, 3, dtype=torch.bfloat16, device=meta)
    assert torch.mm(half.t(), half, out_dtype=torch.float32).dtype == torch.float32
