"""Every function that TorchScript computes beside what it was made of, in Python: the same bytes, but for one rounding."""

import copy
from collections import Counter

import pytest
import torch
from test_packing import FAMILIES, adapter, family, forward_backward, micro_batches, random_forest
from test_tree_ways import errors
from train_tiny import tiny_base, trained_adapter

from hone_worker.base import fused_layers, fused_linears, layer_math, products
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.lora import LoraWeights
from hone_worker.packing import kernel_ranges, range_math, tree_attention

SCRIPTED = {
    name: function
    for module in (layer_math, range_math)
    for name, function in vars(module).items()
    if isinstance(function, torch.jit.ScriptFunction)
}
USERS = [
    (module, name) for module in (fused_layers, fused_linears, tree_attention) for name in SCRIPTED
    if vars(module).get(name) is SCRIPTED[name]
]  # fmt: skip
TARGETS = ["_proj", ("q_proj", "v_proj", "down_proj"), ("k_proj", "o_proj", "up_proj")]


def tensors_of(given) -> list[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        return [given]
    return [t for one in given for t in tensors_of(one)] if isinstance(given, (list, tuple)) else []


def detached(given):
    if isinstance(given, torch.Tensor):
        return given.detach()
    return type(given)(map(detached, given)) if isinstance(given, (list, tuple)) else given


def same_bytes(ours, theirs) -> bool:
    pairs = zip(tensors_of(ours), tensors_of(theirs), strict=True)
    return all(
        one.shape == other.shape
        and one.dtype == other.dtype
        and torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
        for one, other in pairs
    )


def parted_onto(summand, x, weight, wide: bool) -> torch.Tensor:
    """`product_onto` as TorchScript computes it: it makes a product and a sum of an `addmm`, which rounds otherwise."""
    if wide and products._worth(x.shape[0], weight.numel(), weight):
        return products._onednn_onto(summand, x, weight)
    return summand + torch.mm(x, weight.t())


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often each was called; each call is made both ways, of the same memory with the same gaps in it."""
    seen: Counter[str] = Counter()
    monkeypatch.setattr(layer_math, "product_onto", parted_onto)

    def twofold(name):
        def both(*given):
            beside = copy.deepcopy(detached(given))
            found = SCRIPTED[name](*given)
            wanted = SCRIPTED[name]._torchdynamo_inline(*beside)
            assert same_bytes(found, wanted), name
            # Some write into what they are given.
            assert same_bytes(given, beside), name
            seen[name] += 1
            return found

        return both

    for module, name in USERS:
        monkeypatch.setattr(module, name, twofold(name))
    return seen


def drawn(name: str, seed: int):
    """A base of random sizes and an adapter of it as after training, on some of its layers or on all."""
    random = torch.Generator().manual_seed(seed)

    def one_of(*values: int) -> int:
        return values[int(torch.randint(len(values), (), generator=random))]

    heads = one_of(2, 4, 6)
    sizes = {
        "hidden_size": heads * one_of(4, 8, 12),
        "intermediate_size": one_of(20, 48, 77),
        "num_attention_heads": heads,
        "num_key_value_heads": one_of(1, 2, heads),
    }
    base = family(name, **sizes, **({"head_dim": one_of(4, 8, 16)} if name == "qwen3" else {}))
    assert base.paths.layer == "fused"
    whole = adapter(base, seed)
    kept = {p: pair for p, pair in whole.tensors.items() if p.endswith(TARGETS[seed % len(TARGETS)])}
    assert all(bool(b.any()) for _, b in kept.values())
    return base, LoraWeights(whole.spec, kept)


def test_there_are_eleven_and_the_trainer_calls_all_of_them():
    assert len(SCRIPTED) == 11, "TorchScript takes all of them"
    assert {name for _, name in USERS} == set(SCRIPTED)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name in fused_layers.FAMILIES])
def test_values_and_gradients_have_the_same_bytes(name, calls, monkeypatch):
    for seed in range(6):
        monkeypatch.setattr(kernel_ranges, "_SHORTEST", 1 + 8 * (seed % 2))
        monkeypatch.setattr(fused_layers, "_PIECE_ROWS", (7, 32)[seed % 2])
        monkeypatch.setattr(fused_layers, "_PIECE_BYTES", 0)
        base, weights = drawn(name, seed)
        forward_backward(base, weights, micro_batches(random_forest(seed), "tree"))
    # Heads have a norm in one family.
    missing = set() if name == "qwen3" else {"turn_heads", "turn_heads_back"}
    assert set(calls) == set(SCRIPTED) - missing
    assert min(calls.values()) >= 6


@pytest.mark.parametrize("library", ["mkl", "onednn"])
def test_a_whole_pass_has_the_same_bytes(library, monkeypatch):
    """Through all of them one after another, in products of which some are oneDNN's."""
    base = tiny_base(ComputePaths(products=library), hidden=128, vocabulary=64)
    assert base.paths.wide_products is (library == "onednn")
    weights = trained_adapter(base)
    for seed in range(6):
        parts = micro_batches(random_forest(seed), "tree")
        found = forward_backward(base, weights, parts)
        assert len(found[2]) == 28 and all(bool(gradient.any()) for gradient in found[2].values())
        with monkeypatch.context() as patch:
            for module, name in USERS:
                patch.setattr(module, name, SCRIPTED[name]._torchdynamo_inline)
            plain = forward_backward(base, weights, parts)
            assert errors(found, plain) < 1e-5
            patch.setattr(layer_math, "product_onto", parted_onto)
            _, values, gradients = forward_backward(base, weights, parts)
        assert torch.equal(found[1], values)
        assert all(torch.equal(found[2][name], gradient) for name, gradient in gradients.items())
