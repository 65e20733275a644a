"""Packed rows against sequences that go through the model alone: the same logprobs, the same gradients."""

import inspect
import logging
import os
import sys
from dataclasses import replace

import pytest
import torch
import train_reference as reference
from train_reference import Completion, Forest
from train_tiny import VOCABULARY, save_policy, tiny_base, train, trained_adapter
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from hone_worker.base.adapter_files import fresh_adapter
from hone_worker.base.compute_paths import AUTO, ComputePaths
from hone_worker.base.lora import LoraSpec, LoraWeights
from hone_worker.base.model import wrap_base
from hone_worker.packing import attention, tree_attention
from hone_worker.packing.attention import NAME, register
from hone_worker.packing.pack import pack
from hone_worker.packing.tree_attention import obstacle, trees
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.forward import logprobs
from hone_worker.train.rows import mini_batches
from hone_worker.train.step_data import parse_step_data

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "qwen3": Qwen3Config(head_dim=8, tie_word_embeddings=True, **SIZES),
    "llama": LlamaConfig(attention_bias=True, **SIZES),
    # Windows that no sequence outgrows: layers of both kinds, and of one.
    "gemma3": Gemma3TextConfig(head_dim=8, sliding_window=512, sliding_window_pattern=2, **SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "mistral": MistralConfig(sliding_window=512, **SIZES),
}


def family(name: str, dtype=torch.float32, max_model_len=512, paths=AUTO, **changes):
    config = FAMILIES[name].__class__(**{**FAMILIES[name].to_diff_dict(), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=register())
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data.normal_(0, 0.25)
    return wrap_base(model.to(dtype).eval(), None, name, max_model_len, paths)


def random_forest(seed: int) -> Forest:
    """Groups with one prompt, prompts with one beginning, turns, branches, equal answers, masked completions."""
    random = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=random))

    def ids(count: int) -> list[int]:
        return torch.randint(VOCABULARY, (count,), generator=random).tolist()

    forest, system = Forest(), ids(number(1, 6))
    for group in range(3):
        prompt = system + ids(number(0, 5))
        for _ in range(number(2, 4)):
            rollout = forest.rollout(number(-9, 9) / 7, group, trainable=int(number(0, 5) > 0))
            made: list[int] = []
            for turn in range(number(1, 5)):
                # A root is the group's prompt, or one of its own; a turn goes on from any earlier one.
                parent = made[number(0, len(made) - 1)] if made and number(0, 4) > 0 else -1
                given = ids(number(0, 4)) if parent >= 0 else prompt if number(0, 3) else ids(number(1, 4))
                # Few distinct answers, so that some rollouts sample the same.
                sampled = [number(0, 2) for _ in range(number(1, 5))]
                if number(0, 2) == 0:
                    sampled = ids(len(sampled))
                made.append(
                    forest.add(
                        Completion(
                            given + sampled,
                            [0] * len(given) + [1] * len(sampled),
                            rollout,
                            parent,
                            temperature=(0.0, 0.5, 1.0, 1.7)[number(0, 3)],
                            trainable=int(turn == 0 or number(0, 4) > 0),
                            logprobs=[0.0] * len(given) + [-1.0] * len(sampled),
                        )
                    )
                )
    return forest


def micro_batches(forest: Forest, packing: str | None, plan=None, packable=True):
    given = reference.config(plan=plan or [[forest.leaves()]])
    if packing is not None:
        given["packing"] = packing
    data, config = parse_step_data(reference.body(forest, given))
    advantages = torch.tensor(reference.advantages(forest.rewards, forest.groups, "none"))
    return [
        m
        for s in mini_batches(data, config, advantages[data.completion_rollout.long()], packable=packable)
        for m in s.micro_batches
    ]


def forward_backward(base, weights, parts):
    """Logprobs and entropies by token, and the gradient of a sum that weighs each token differently."""
    exact = torch.promote_types(torch.float32, base.dtype)
    pairs = {p: tuple(t.to(exact, copy=True).requires_grad_() for t in w) for p, w in weights.tensors.items()}
    leaf = LoraWeights(weights.spec, pairs)
    values = {}
    for part in parts:
        logprob, entropy = logprobs(base, leaf, part)
        (logprob * torch.sin(1.0 + part.position)).sum().backward()
        for at, one, two in zip(part.position.tolist(), logprob.tolist(), entropy.tolist(), strict=True):
            values[at] = (one, two)
    table = torch.tensor([values[at] for at in sorted(values)], dtype=torch.float64)
    return sorted(values), table, {f"{p}.{i}": t.grad for p, w in pairs.items() for i, t in enumerate(w)}


def adapter(base, seed=3):
    fresh = fresh_adapter(base.model, LoraSpec(r=4, alpha=8.0), seed)
    random = torch.Generator().manual_seed(seed)
    drawn = {p: (a, torch.randn(b.shape, generator=random) * 0.1) for p, (a, b) in fresh.tensors.items()}
    return LoraWeights(fresh.spec, drawn)


def assert_equal(base, weights, one, other, limit):
    (places, values, gradient), (others, theirs, their_gradient) = (
        forward_backward(base, weights, parts) for parts in (one, other)
    )
    assert places == others and len(places) > 0
    assert ((values - theirs).abs() / theirs.abs().clamp(min=1.0)).max() <= limit
    for name, wanted in their_gradient.items():
        assert (gradient[name] - wanted).norm() <= limit * wanted.norm(), name


@pytest.mark.parametrize("seed", range(30))
def test_a_token_sees_its_own_sequence_up_to_itself_and_equal_beginnings_lie_there_once(seed):
    random = torch.Generator().manual_seed(seed)
    count, symbols = 1 + seed % 12, 2 + seed % 3
    sequences = [
        torch.randint(symbols, (int(torch.randint(1, 12, (), generator=random)),), generator=random).numpy()
        for _ in range(count)
    ]
    row = pack(sequences)
    length = len({tuple(s[: n + 1]) for s in sequences for n in range(len(s))})
    assert row.input_ids.shape == row.position_ids.shape == (length,)
    mask = torch.zeros(length, length, dtype=torch.bool)
    for low, high in row.layout.trees:
        mask[low:high, low:high] = row.layout.mask(low, high)
    for ids, places in zip(sequences, row.places, strict=True):
        assert row.input_ids[places].tolist() == ids.tolist()
        assert row.position_ids[places].tolist() == list(range(len(ids)))
        for n, place in enumerate(places.tolist()):
            assert mask[place].nonzero()[:, 0].tolist() == sorted(places[: n + 1].tolist())


def test_many_branches_of_a_long_chain_need_no_deep_recursion():
    chain = list(range(400))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 60)
    try:
        row = pack([torch.tensor([*chain[:n], 5000]).numpy() for n in range(1, 400)])
    finally:
        sys.setrecursionlimit(limit)
    assert row.input_ids.numel() == 399 + 399
    assert len(row.layout.spans) == 399


def exact_norms(monkeypatch):
    """The models' own norms go through float32 whatever their input, too coarse for differences of 1e-9."""

    def exact(self, x):
        eps = getattr(self, "variance_epsilon", None) or self.eps
        weight = 1.0 + self.weight if isinstance(self, Gemma3RMSNorm) else self.weight
        return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    for norm in (Qwen3RMSNorm, Qwen2RMSNorm, LlamaRMSNorm, MistralRMSNorm, Gemma3RMSNorm):
        monkeypatch.setattr(norm, "forward", exact)


@pytest.mark.parametrize("kernel", ["ranges", "masks"])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_packed_rows_have_the_logprobs_and_gradients_of_rows_alone(monkeypatch, kernel, name, dtype, limit):
    if dtype == torch.float64:
        exact_norms(monkeypatch)
    if kernel == "masks":
        monkeypatch.setattr(tree_attention, "attend", None)
        monkeypatch.setattr(tree_attention, "_ranges_on", lambda *_: False)
    base = family(name, dtype)
    weights = adapter(base)
    for seed in range(3):
        forest = random_forest(seed)
        packed = micro_batches(forest, "tree")
        leaves = forest.leaves()
        alone = micro_batches(forest, "rows", [[[leaf] for leaf in leaves]])
        assert packed[0].layout is not None and packed[0].tokens < sum(m.tokens for m in alone)
        assert_equal(base, weights, packed, alone, limit)
        if kernel == "ranges":
            # Any cut into micro-batches, and padding, come to the same.
            cut = [[leaves[::2], leaves[1::2]]] if len(leaves) > 1 else [[leaves]]
            assert_equal(base, weights, micro_batches(forest, "tree", cut), alone, limit)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bf16_differs_by_rounding_only(seed):
    base = family("qwen3", torch.bfloat16)
    weights = adapter(base)
    forest = random_forest(seed)
    leaves = forest.leaves()
    _, packed, gradient = forward_backward(base, weights, micro_batches(forest, "tree"))
    _, alone, wanted = forward_backward(
        base, weights, micro_batches(forest, "rows", [[[leaf] for leaf in leaves]])
    )
    assert (packed - alone).abs().mean() < 0.05
    for name in wanted:
        assert (gradient[name] - wanted[name]).norm() < 0.1 * wanted[name].norm(), name


def test_no_mask_of_the_rows_length_is_made(monkeypatch):
    base = family("llama")
    packed = micro_batches(random_forest(2), "tree")

    def refuse(*_args, **_options):
        raise AssertionError("a mask was made")

    monkeypatch.setattr(attention, "sdpa_mask", refuse)
    monkeypatch.setattr(tree_attention.TreeLayout, "mask", refuse)
    assert logprobs(base, adapter(base), packed[0])[0].isfinite().all()


def test_a_window_that_sequences_outgrow_is_trained_unpacked_and_says_so(tmp_path, caplog):
    base = family("mistral", sliding_window=8)
    assert "8 tokens" in obstacle(base.model, NAME, base.max_model_len)
    policy = save_policy(tmp_path / "policy", base, adapter(base))
    forest = random_forest(3)
    results = {}
    for packing, plan in (("tree", [[forest.leaves()]]), ("rows", [[[leaf] for leaf in forest.leaves()]])):
        given = reference.config(
            staging=str(tmp_path / packing), checkpoint=str(policy), plan=plan, packing=packing
        )
        with caplog.at_level(logging.WARNING, "hone_worker"):
            caplog.clear()
            results[packing] = train(base, forest, given)["metrics"]
        assert ("one a row" in caplog.text) == (packing == "tree")
    tree, rows = results["tree"], results["rows"]
    assert tree["unpacked_micro_batches"] > 1 and tree["model_tokens"] == tree["sequence_tokens"]
    assert tree["grad_norm"] == pytest.approx(rows["grad_norm"], rel=1e-5)
    # The window matters here: without it the same weights have another gradient.
    wide = family("mistral")
    given = {**given, "staging": str(tmp_path / "wide")}
    assert train(wide, forest, given)["metrics"]["grad_norm"] != pytest.approx(rows["grad_norm"], rel=1e-3)


def test_unpacked_rows_take_no_more_room_than_the_packed_row_would():
    forest = random_forest(5)
    (packed,) = micro_batches(forest, "tree")
    parts = micro_batches(forest, "tree", packable=False)
    assert len(parts) > 1 and all(m.layout is None for m in parts)
    assert all(m.input_ids.numel() <= packed.tokens or len(m.input_ids) == 1 for m in parts)
    assert sum(m.tokens for m in parts) == packed.sequence_tokens
    positions = torch.cat([m.position for m in parts])
    assert positions.sort().values.equal(packed.position.sort().values)


def test_attention_of_another_kind_is_not_packed():
    base = family("gemma3")  # whose layers are not fused
    assert obstacle(base.model, NAME, base.max_model_len) is None
    base.model.set_attn_implementation("eager")
    assert "eager" in obstacle(base.model, NAME, base.max_model_len)
    # Were it tried nevertheless, it would not pass unnoticed.
    (packed,) = micro_batches(random_forest(0), "tree")
    with pytest.raises(HoneWorkerError) as caught, trees(packed.layout):
        base.model(input_ids=packed.input_ids, use_cache=False)
    assert caught.value.code == "unsupported_base"


def test_a_plan_from_before_packing_is_still_of_rows():
    forest = random_forest(6)
    (old,), (rows,) = micro_batches(forest, None), micro_batches(forest, "rows")
    assert old.layout is None and old.input_ids.equal(rows.input_ids) and len(old.input_ids) > 1


@pytest.mark.parametrize("layer", ["fused", "eager"])
def test_the_same_operation_gives_the_same_bytes(tmp_path, layer):
    """With the same number of threads, which a data directory keeps; layers of one's own with any number."""
    # Large enough for torch to share work among threads; all first answers are predicted from one place.
    base = tiny_base(ComputePaths(layer=layer), hidden=128, vocabulary=64)
    policy = save_policy(tmp_path / "policy", base, trained_adapter(base))
    random = torch.Generator().manual_seed(0)
    forest = Forest()
    prompt = torch.randint(64, (60,), generator=random).tolist()
    for i in range(32):
        answer = torch.randint(64, (20,), generator=random).tolist()
        rollout = forest.rollout(i / 7, 0)
        forest.add(
            Completion(prompt + answer, [0] * 60 + [1] * 20, rollout, logprobs=[0.0] * 60 + [-2.0] * 20)
        )
    plan = [[forest.leaves()[:20], forest.leaves()[20:]]]
    outcomes = []
    before = torch.get_num_threads()
    try:
        for run, threads in enumerate((1, 1, 2, 2)):
            torch.set_num_threads(min(threads, os.cpu_count() or 1))
            staging = tmp_path / f"run{run}"
            given = reference.config(staging=str(staging), checkpoint=str(policy), plan=plan, packing="tree")
            metrics = train(base, forest, given)["metrics"]
            assert metrics["model_tokens"] < metrics["sequence_tokens"] / 2
            outcomes.append(
                [(staging / f).read_bytes() for f in ("adapter_model.safetensors", "optimizer.safetensors")]
            )
    finally:
        torch.set_num_threads(before)
    assert outcomes[0] == outcomes[1] and outcomes[2] == outcomes[3]
    assert layer == "fused" or outcomes[0] == outcomes[2]


def test_masked_and_context_completions_are_context_only():
    forest = random_forest(7)
    forest.completions[0] = replace(forest.completions[0], trainable=0)
    (packed,) = micro_batches(forest, "tree")
    trained = reference.trained_tokens(forest)
    offsets = forest.tensors()["completion_offsets"].tolist()
    assert sorted(packed.position.tolist()) == sorted(offsets[c] + k for c, k in trained)
    assert packed.longest == max(m.longest for m in micro_batches(forest, "rows"))
