"""A base in 4 bits: what it computes is what the matrices that it stands for compute, in training and in decoding."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import save_adapter
from safetensors.torch import load_file
from test_engine_decode import Run, agree, prompt_of
from test_engine_families import SHAPE, save
from test_policy_cache import trained_thrice
from test_train_memory import files, run
from train_reference import Completion, Forest
from train_tiny import (
    relative_difference,
    save_policy,
    tiny_model,
    trained_adapter,
)
from transformers import AutoModelForCausalLM, Qwen2Config

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.four_bit import pack_linear_layers
from hone_worker.base.lora import LoraLinear
from hone_worker.base.model import Base, load_base, wrap_base
from hone_worker.engine.lean import LeanForward
from hone_worker.packing.attention import register
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.checkpoint import OPTIMIZER_FILE
from hone_worker.train.memory import TrainerMemory, measure

functional = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed").functional


def stood_for(weight: torch.Tensor) -> torch.Tensor:
    """The matrix that a packed weight stands for, by the library itself."""
    packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(packed, state)


def unpacked(model: torch.nn.Module) -> torch.nn.Module:
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and path != "lm_head":
            module.weight.data = stood_for(module.weight.data)
    return model


def pair(lora: str = "module", dtype: torch.dtype = torch.float32) -> tuple[Base, Base]:
    """A base in 4 bits, and one that holds the matrices that it stands for."""
    models = [tiny_model(dtype), unpacked(tiny_model(dtype))]
    pack_linear_layers(models[0], torch.device("cpu"))
    for model in models:
        model.set_attn_implementation(register())
    # Packed matrices are no matrices to fuse a layer of, so the other one goes the same way.
    paths = ComputePaths(lora=lora, layer="eager")  # type: ignore[arg-type]
    one, other = (wrap_base(m, None, "tiny", 2048, paths) for m in models)
    return one, other


@pytest.fixture
def policy(tmp_path):
    return save_policy(tmp_path / "policy", pair()[1], trained_adapter(pair()[1]))


def test_layers_are_packed_and_the_rest_is_as_it_was():
    packed, plain = pair()
    for path, layer in packed.router.layers.items():
        assert layer.weight.dtype == torch.uint8 and layer.four_bit is not None
        assert torch.equal(layer.matrix(), plain.router.layers[path].weight)
        assert not torch.equal(layer.matrix(), tiny_model().get_submodule(path).weight)
        assert layer.weight.nbytes + layer.four_bit.scale_bytes <= 0.6 * layer.matrix().numel()
    rest = {name: p for name, p in packed.model.named_parameters() if p.dtype != torch.uint8}
    assert rest and all(torch.equal(p, plain.model.get_parameter(name)) for name, p in rest.items())
    assert packed.dtype == torch.float32 and packed.weight_bytes < 0.4 * plain.weight_bytes
    assert packed.parameters == plain.parameters == sum(p.numel() for p in plain.model.parameters())


@pytest.mark.parametrize("lora", ["module", "joined"])
@pytest.mark.parametrize("packing", ["tree", "rows"])
def test_loss_and_gradients_are_those_of_the_matrices_that_it_stands_for(
    policy, forest, tmp_path, lora, packing
):
    found = []
    for name, base in zip(("packed", "plain"), pair(lora), strict=True):
        events = run(base, forest, policy, tmp_path / name, packing=packing)
        found.append((events[-1]["metrics"], load_file(tmp_path / name / OPTIMIZER_FILE)))
    (ours, packed), (theirs, plain) = found
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5) and theirs["grad_norm"] > 1e-3
    first = {name: moment for name, moment in plain.items() if name.endswith(".exp_avg")}
    assert relative_difference({name: packed[name] for name in first}, first) < 1e-5


@pytest.mark.parametrize("lora", ["module", "joined"])
def test_the_same_holds_in_bfloat16(policy, forest, tmp_path, lora):
    found = []
    for name, base in zip(("packed", "plain"), pair(lora, torch.bfloat16), strict=True):
        run(base, forest, policy, tmp_path / name)
        found.append(load_file(tmp_path / name / OPTIMIZER_FILE))
    first = {name: moment for name, moment in found[1].items() if name.endswith(".exp_avg")}
    assert relative_difference({name: found[0][name] for name in first}, first) < 1e-2


@pytest.mark.parametrize("lora", ["module", "joined"])
def test_no_matrix_is_kept_for_the_backward(lora):
    packed, plain = pair(lora)
    ours, theirs = (measure(base, trained_adapter(base).trainable()) for base in (packed, plain))
    assert ours.plain == theirs.plain
    assert theirs.unpacked == 0 and ours.unpacked == 2 * packed.unpacked_bytes > 0


def test_a_resumed_run_has_the_same_bytes(policy, forest, tmp_path):
    base = pair()[0]
    memory = TrainerMemory(base)
    kept = trained_thrice(base, forest, policy, tmp_path / "kept", lambda: memory)
    base = pair()[0]
    read = trained_thrice(base, forest, policy, tmp_path / "read", lambda: TrainerMemory(base))
    assert kept == read and kept[1] != kept[2]
    recomputed = run(
        base, forest, policy, tmp_path / "again", TrainerMemory(base, recompute="on"), step=1, seed=1
    )
    assert recomputed[-1]["metrics"]["recomputed_micro_batches"] == 2 and files(tmp_path / "again") == read[0]


def test_the_engine_says_what_the_matrices_say_and_so_does_the_trainer(tiny_folder, tmp_path):
    """Mixed adapters and the bare base against PEFT over the matrices, then one policy's answers as step data."""
    packed = load_base(str(tiny_folder), served_name="tiny", quantize="nf4")
    folder = tmp_path / "matrices"
    unpacked(AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)).save_pretrained(folder)
    paths = [save_adapter(packed, tmp_path / str(seed), seed) for seed in (1, 2)]
    one, two = (read_adapter(path, packed.model) for path in paths)
    engine = Run(packed)
    assert isinstance(engine.decoder._forward, LeanForward)
    asked = [
        engine.add(prompt_of(9 + 4 * place, place), adapter, index=place, temperature=0.8, seed=place)
        for place, adapter in enumerate([None, one, two, one])
    ]
    engine.finish()
    for choice, path in zip(asked, [None, paths[0], paths[1], paths[0]], strict=True):
        agree(folder, path, choice, engine.of(choice))

    forest = Forest()
    for reward, choice in enumerate(choice for choice in asked if choice.adapter is one):
        said, prompt = engine.of(choice), choice.prompt
        forest.add(
            Completion(
                suffix=prompt + said.token_ids,
                sampled=[0] * len(prompt) + [1] * len(said.token_ids),
                logprobs=[0.0] * len(prompt) + said.logprobs,
                rollout=forest.rollout(reward, 0),
                temperature=0.8,
            )
        )
    events = run(packed, forest, paths[0], tmp_path / "staging", plan=[[[0, 1]]])
    metrics = events[-1]["metrics"]
    assert metrics["train_tokens"] > 20 and metrics["sampling/sampling_logp_difference/max"] < 1e-4


def test_biases_are_added_before_anything_is_rounded(tmp_path):
    folder = save(Qwen2Config(**SHAPE), tmp_path / "qwen2")
    packed = load_base(str(folder), dtype="bfloat16", quantize="nf4")
    layer = next(layer for layer in packed.router.layers.values() if layer.bias is not None)
    random = torch.Generator().manual_seed(0)
    layer.bias.data = torch.randn(layer.out_features, generator=random).bfloat16()
    x = torch.randn(40, layer.in_features, generator=random).bfloat16()
    summand = (0.01 * torch.randn(40, layer.out_features, generator=random)).bfloat16()
    exact = x.double() @ layer.matrix().double().t() + layer.bias.double() + summand.double()
    twice = (summand + layer.bias).double() + x.double() @ layer.matrix().double().t()
    error = (layer.product(x, summand).double() - exact).abs().mean()
    assert error < 1.02 * (exact.bfloat16().double() - exact).abs().mean()
    assert (twice.bfloat16().double() - exact).abs().mean() > 1.02 * error


def test_one_frozen_layer_has_the_gradient_of_its_matrix():
    packed, _ = pair()
    layer: LoraLinear = next(iter(packed.router.layers.values()))
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, layer.in_features, generator=random).requires_grad_()
    wanted = torch.randn(2, 5, layer.out_features, generator=random)
    layer(x).backward(wanted)
    assert x.grad is not None and torch.allclose(x.grad, wanted @ layer.matrix(), rtol=1e-5, atol=1e-6)


def test_without_the_library_it_says_what_to_install(monkeypatch, tiny_folder: Path):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    # A large base takes minutes to load: it is said before.
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(HoneWorkerError, match="setup --bitsandbytes") as caught:
        load_base(str(tiny_folder), quantize="nf4")
    assert caught.value.code == "bad_option" and caught.value.param == "quantize"
