"""Decoder layers as one function against rows alone in float64, for every family that they know."""

from __future__ import annotations

import logging

import pytest
import torch
from test_packing import adapter, family, forward_backward, micro_batches, random_forest
from test_tree_ways import errors, random_trees, whole_mask
from train_reference import Completion, Forest

from hone_worker.base import fused_layers
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.lora import LoraWeights
from hone_worker.packing import kernel_ranges
from hone_worker.packing.kernel_ranges import Ranges
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.forward import logprobs, read_out

EAGER = ComputePaths(layer="eager")
TARGETS = {"all": "_proj", "some": ("q_proj", "v_proj", "down_proj"), "attention": ("k_proj", "o_proj")}


@pytest.fixture(params=[1, 32], ids=["short ranges", "long ranges"])
def shortest(request, monkeypatch):
    """Where to part is a question of speed; trees of a few tokens are parted nowhere."""
    monkeypatch.setattr(kernel_ranges, "_SHORTEST", request.param)
    monkeypatch.setattr(fused_layers, "_PIECE_ROWS", 7 * request.param)
    monkeypatch.setattr(fused_layers, "_PIECE_BYTES", 0)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("name", ["qwen3", "llama", "qwen2", "mistral"])
def test_logprobs_and_every_gradient_are_those_of_rows_alone(name, targets, shortest):
    base, exact = family(name), family(name, torch.float64)
    assert (base.paths.layer, exact.paths.layer) == ("fused", "eager")
    drawn = adapter(base)
    kept = {p: pair for p, pair in drawn.tensors.items() if p.endswith(TARGETS[targets])}
    weights = LoraWeights(drawn.spec, kept)
    for seed in range(6):
        found = forward_backward(base, weights, micro_batches(random_forest(seed), "tree"))
        wanted = forward_backward(exact, weights, micro_batches(random_forest(seed), "rows"))
        assert errors(found, wanted) <= 1e-5, seed


@pytest.mark.parametrize("name", ["qwen3", "mistral"])
def test_answers_of_one_length_are_attended_together(name, shortest):
    random = torch.Generator().manual_seed(5)
    forest = Forest()
    for group in range(3):
        prompt = torch.randint(30, (40,), generator=random).tolist()
        for member in range(5):
            answer = torch.randint(30, (9,), generator=random).tolist()
            rollout = forest.rollout(float(member), group)
            forest.add(Completion(prompt + answer, [0] * 40 + [1] * 9, rollout))
    base, exact = family(name), family(name, torch.float64)
    (packed,) = micro_batches(forest, "tree")
    assert max(count for _, _, count in Ranges.of(packed.layout).runs) >= 4
    found = forward_backward(base, adapter(base), [packed])
    wanted = forward_backward(exact, adapter(base), micro_batches(forest, "rows"))
    assert errors(found, wanted) <= 1e-5


def test_without_an_adapter_and_without_a_gradient():
    base, plain = family("qwen3"), family("qwen3", paths=EAGER)
    (packed,) = micro_batches(random_forest(3), "tree")
    with torch.no_grad():
        for weights in (None, adapter(base)):
            found, wanted = (logprobs(one, weights, packed) for one in (base, plain))
            for ours, theirs in zip(found, wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_same_bytes_each_time_and_less_to_keep():
    (packed,) = micro_batches(random_forest(4), "tree")
    base, plain = family("qwen3"), family("qwen3", paths=EAGER)
    once, again = (forward_backward(base, adapter(base), [packed]) for _ in range(2))
    assert torch.equal(once[1], again[1])
    assert all(torch.equal(gradient, again[2][name]) for name, gradient in once[2].items())
    kept = []
    for one in (base, plain):
        seen = {}

        def note(tensor, seen=seen):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor.detach()

        leaf = LoraWeights(
            adapter(one).spec, {p: pair for p, pair in adapter(one).trainable().tensors.items()}
        )
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logprobs(one, leaf, packed)
        kept.append(sum(seen.values()))
    assert kept[0] < 0.6 * kept[1]


@pytest.mark.parametrize("seed", range(200))
def test_the_ranges_cover_each_pair_that_is_seen_once(seed, monkeypatch):
    monkeypatch.setattr(kernel_ranges, "_SHORTEST", 1 + seed % 9)
    layout = random_trees(seed)
    length = layout.trees[-1][1]
    random = torch.Generator().manual_seed(seed)
    wanted = (torch.rand(length, generator=random) < 0.3).nonzero()[:, 0]
    whole = Ranges.of(layout)
    one_by_one = [
        (low + i * size, low + (i + 1) * size) for low, size, count in whole.runs for i in range(count)
    ]
    assert one_by_one == whole.spans
    for ranges, asked in ((whole, torch.arange(length)), (whole.asked_by(wanted.numpy()), wanted)):
        count = torch.zeros(length, length, dtype=torch.int64)
        for low, high in ranges.spans:
            count[low:high, low:high] += torch.ones(high - low, high - low, dtype=torch.int64).tril()
        for q_low, q_high, k_low, k_high in ranges.blocks:
            count[q_low:q_high, k_low:k_high] += 1
        assert torch.equal(count[asked], whole_mask(layout, length)[asked].long())
        assert int(count.max()) <= 1


def test_other_families_keep_their_own_layers(monkeypatch, caplog):
    assert family("gemma3").paths.layer == "eager"
    with pytest.raises(HoneWorkerError, match="layer=eager"):
        family("gemma3", paths=ComputePaths(layer="fused"))
    # A model that computes something else than its family did when this was written.
    project = fused_layers.project
    monkeypatch.setattr(fused_layers, "project", lambda x, *rest: project(x * 1.1 + 0.1, *rest))
    with caplog.at_level(logging.WARNING, logger="hone_worker"):
        base = family("qwen3")
    assert base.paths.layer == "eager" and "differ" in caplog.text
    packed, plain = micro_batches(random_forest(1), "tree"), family("qwen3", paths=EAGER)
    found, wanted = (forward_backward(one, adapter(one), packed) for one in (base, plain))
    assert torch.equal(found[1], wanted[1])


def test_a_scalar_head_reads_some_places_only():
    (packed,) = micro_batches(random_forest(2), "tree")
    found = []
    for base in (family("qwen3"), family("qwen3", paths=EAGER)):
        leaf = adapter(base).trainable()
        head = torch.linspace(-1, 1, 32)[None].requires_grad_()
        _, _, scores = read_out(base, leaf, head, packed, entropy_gradient=False, recompute=False)
        scores.square().sum().backward()
        found.append((scores.detach(), [head.grad, *(p.grad for p in leaf.parameters())]))
    (scores, gradient), (wanted, theirs) = found
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-5)
    assert all((ours - one).norm() <= 1e-5 * one.norm() for ours, one in zip(gradient, theirs, strict=True))
