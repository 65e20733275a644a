"""LoRA in the base against PEFT, and adapter files that PEFT can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import save_adapter
from peft import PeftModel
from transformers import AutoModelForCausalLM

from hone_worker.base.adapter_files import fresh_adapter, read_adapter, write_adapter
from hone_worker.base.lora import DEFAULT_TARGETS, AdapterStack, LoraSpec, LoraWeights, default_targets
from hone_worker.base.model import Base, load_base
from hone_worker.process.errors import HoneWorkerError

IDS = torch.arange(3 * 11).view(3, 11) * 7 % 256


def peft_logits(base: Path, adapter: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        return model(IDS).logits


def logits(base: Base) -> torch.Tensor:
    with torch.no_grad():
        return base.model(IDS).logits


def test_single_and_rows_agree_with_peft(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path]
) -> None:
    weights = [read_adapter(folder, tiny_base.model) for folder in adapter_folders]
    expected = [peft_logits(tiny_folder, folder) for folder in adapter_folders]
    with torch.no_grad():
        bare = AutoModelForCausalLM.from_pretrained(tiny_folder)(IDS).logits
    assert torch.equal(logits(tiny_base), bare)
    for adapter, right in zip(weights, expected, strict=True):
        with tiny_base.router.single(adapter):
            assert torch.allclose(logits(tiny_base), right, atol=1e-5)
        assert (bare - right).abs().max() > 0.1
    with tiny_base.router.rows(AdapterStack(weights), torch.tensor([1, -1, 0])):
        mixed = logits(tiny_base)
    for row, right in enumerate((expected[1], bare, expected[0])):
        assert torch.allclose(mixed[row], right[row], atol=1e-5)
    assert torch.equal(logits(tiny_base), bare)


def test_adapters_of_different_targets_share_a_batch(tiny_base: Base, tmp_path: Path) -> None:
    full = read_adapter(save_adapter(tiny_base, tmp_path / "full", 1), tiny_base.model)
    some = LoraWeights(
        LoraSpec(4, 8.0, ("q_proj",)), {p: t for p, t in full.tensors.items() if p.endswith("q_proj")}
    )
    with tiny_base.router.single(some):
        expected = logits(tiny_base)
    with tiny_base.router.rows(AdapterStack([full, some]), torch.tensor([1, 0, 1])):
        mixed = logits(tiny_base)
    assert torch.allclose(mixed[::2], expected[::2], atol=1e-5)
    assert not torch.allclose(mixed[1], expected[1], atol=1e-2)


def test_gradients_reach_a_and_b_and_nothing_else(
    tiny_base: Base, tiny_folder: Path, adapter_folders: list[Path]
) -> None:
    ours = read_adapter(adapter_folders[0], tiny_base.model).trainable()
    with tiny_base.router.single(ours):
        tiny_base.model(IDS).logits.logsumexp(-1).sum().backward()
    peft = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_folder), adapter_folders[0], is_trainable=True
    )
    peft(IDS).logits.logsumexp(-1).sum().backward()
    theirs = dict(peft.named_parameters())
    for path, (a, b) in ours.tensors.items():
        for tensor, part in ((a, "lora_A"), (b, "lora_B")):
            right = theirs[f"base_model.model.{path}.{part}.default.weight"].grad
            assert tensor.grad is not None and right is not None
            assert torch.allclose(tensor.grad, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))
    assert all(p.grad is None for p in tiny_base.model.parameters())


def test_injection_keeps_the_names_of_parameters(tiny_base: Base, tiny_folder: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert list(tiny_base.model.state_dict()) == list(plain.state_dict())
    assert default_targets(tiny_base.model) == DEFAULT_TARGETS
    assert not any(path.endswith("lm_head") for path in tiny_base.router.layers)


def test_a_fresh_adapter_begins_as_pefts_does_and_leaves_the_global_generator(
    tiny_base: Base, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    fresh = fresh_adapter(tiny_base.model, LoraSpec(r=8), 3)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in fresh.tensors.values():
        bound = 1 / a.shape[1] ** 0.5
        assert a.abs().max() <= bound and a.std() == pytest.approx(bound / 3**0.5, rel=0.2)
        assert not b.any()
    (tmp_path / "fresh").mkdir()
    write_adapter(tmp_path / "fresh", fresh, "tiny")
    again = read_adapter(tmp_path / "fresh", tiny_base.model)
    assert again.spec == fresh.spec
    for path, (a, b) in fresh.tensors.items():
        assert torch.equal(a, again.tensors[path][0]) and torch.equal(b, again.tensors[path][1])


def test_a_bad_base_says_so(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(HoneWorkerError) as caught:
        load_base(str(tmp_path))
    assert caught.value.code == "bad_base"
    with pytest.raises(HoneWorkerError) as caught:
        load_base(str(tiny_folder), max_model_len=100_000)
    assert caught.value.param == "max_model_len"
