"""Moments in 8 bits: the steps of bitsandbytes' own optimizer, the same bytes after a resume, and both ways back."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_policy_cache import trained_thrice
from test_train_memory import files, run
from train_tiny import save_policy, tiny_base

from hone_worker.base.adapter_files import fresh_adapter, read_adapter
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.lora import LoraSpec, LoraWeights
from hone_worker.base.model import wrap_base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.adamw import LEAST
from hone_worker.train.checkpoint import BLOCK, OPTIMIZER_FILE, parameter_names
from hone_worker.train.memory import TrainerMemory

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

#: A rank at which some tensors are large enough for 8 bits and others are not.
LARGE = LoraSpec(r=68, alpha=136.0)
EIGHT = {
    "optimizer": "adamw_8bit",
    "learning_rate": 0.01,
    "eps": 1e-8,
    "max_grad_norm": 1e9,
    "warmup_steps": 0,
}
PLAIN = {**EIGHT, "optimizer": "adamw"}
LORA = {"r": LARGE.r, "alpha": LARGE.alpha}


@pytest.fixture
def policy(base, tmp_path) -> Path:
    fresh = fresh_adapter(base.model, LARGE, 3)
    random = torch.Generator().manual_seed(3)
    tensors = {
        path: (a, 0.02 * torch.randn(b.shape, generator=random)) for path, (a, b) in fresh.tensors.items()
    }
    return save_policy(tmp_path / "policy", base, LoraWeights(LARGE, tensors))


def by_name(folder: Path, base) -> dict[str, torch.Tensor]:
    weights = read_adapter(folder, base.model)
    return dict(zip(parameter_names(weights), weights.parameters(), strict=True))


@pytest.fixture
def gradients(monkeypatch) -> list[list[torch.Tensor]]:
    """Those that each update goes along, as the optimizer sees them."""
    seen: list[list[torch.Tensor]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def noted(parameters, *args, **options):
        norm = clip(parameters, *args, **options)
        seen.append([parameter.grad.clone() for parameter in parameters])
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noted)
    return seen


def test_its_steps_are_those_of_the_librarys_optimizer(base, policy, forest, tmp_path, gradients):
    own = [torch.nn.Parameter(value) for value in by_name(policy, base).values()]
    optimizer = bitsandbytes.optim.AdamW8bit(own, lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    at = policy
    for number in range(4):
        run(
            base,
            forest,
            at,
            tmp_path / str(number),
            step=number + 1,
            optimizer=EIGHT,
            lora=LORA,
        )
        at = tmp_path / str(number)
        for parameter, gradient in zip(own, gradients[number], strict=True):
            parameter.grad = gradient
        optimizer.step()
        for (name, ours), theirs in zip(by_name(at, base).items(), own, strict=True):
            assert torch.equal(ours, theirs), (number, name)
    assert len(gradients) == 4 and not all(torch.equal(a, b) for a, b in zip(*gradients[:2], strict=True))


def test_a_resumed_run_has_the_same_bytes(base, policy, forest, tmp_path, monkeypatch):
    given = {"optimizer": EIGHT, "lora": LORA}
    plain = run
    monkeypatch.setattr("test_policy_cache.run", lambda *a, **o: plain(*a, **{**given, **o}))
    memory = TrainerMemory(base)
    kept = trained_thrice(base, forest, policy, tmp_path / "kept", lambda: memory)
    read = trained_thrice(base, forest, policy, tmp_path / "read", lambda: TrainerMemory(base))
    assert kept == read and kept[1] != kept[2]


def test_large_tensors_have_moments_in_8_bits(base, policy, forest, tmp_path):
    run(base, forest, policy, tmp_path / "one", optimizer=EIGHT, lora=LORA)
    run(base, forest, policy, tmp_path / "plain", optimizer=PLAIN, lora=LORA)
    tensors = load_file(tmp_path / "one" / OPTIMIZER_FILE)
    large = {name for name, value in by_name(policy, base).items() if value.numel() >= LEAST}
    assert large and len(large) < len(by_name(policy, base))
    for name, value in by_name(policy, base).items():
        for moment in ("exp_avg", "exp_avg_sq"):
            assert tensors[f"{name}.{moment}"].dtype == (torch.uint8 if name in large else torch.float32)
            scale = tensors.get(f"{name}.{moment}.scale")
            assert (scale is not None) == (name in large)
            if scale is not None:
                assert scale.shape == (-(-value.numel() // BLOCK),)
    # The adapter itself is written as with the other optimizer.
    ours, theirs = (files(tmp_path / name) for name in ("one", "plain"))
    assert ours.keys() == theirs.keys() and ours["adapter_config.json"] == theirs["adapter_config.json"]
    assert len(ours["adapter_model.safetensors"]) == len(theirs["adapter_model.safetensors"])


@pytest.mark.parametrize(("first", "second"), [(EIGHT, PLAIN), (PLAIN, EIGHT)])
def test_a_model_may_go_on_with_the_other_optimizer(base, policy, forest, tmp_path, first, second):
    """From the moments that it has, as near as 8 bits are; the other way round would forget them."""
    run(base, forest, policy, tmp_path / "one", optimizer=first, lora=LORA)
    run(base, forest, tmp_path / "one", tmp_path / "two", step=2, optimizer=second, lora=LORA)
    run(base, forest, tmp_path / "one", tmp_path / "same", step=2, optimizer=first, lora=LORA)
    before, ours, theirs = (by_name(tmp_path / name, base) for name in ("one", "two", "same"))
    moved = torch.cat([(theirs[name] - before[name]).flatten() for name in before])
    apart = torch.cat([(theirs[name] - ours[name]).flatten() for name in before])
    assert 0 < apart.norm() < 0.25 * moved.norm()
    tensors = load_file(tmp_path / "two" / OPTIMIZER_FILE)
    assert int(tensors["updates"]) == 2
    assert any(name.endswith(".scale") for name in tensors) == (second is EIGHT)


def test_joined_adapters_see_the_step(forest, policy, tmp_path):
    """The library writes without telling, and copies of the adapter are kept by its version."""
    joined = wrap_base(tiny_base().model, None, "tiny", 2048, ComputePaths(lora="joined"))
    leaves = forest.leaves()
    given = {"optimizer": EIGHT, "lora": LORA, "loss": {"measureKl": False}}
    plan = [[leaves[::2]], [leaves[1::2]]]
    at_once = run(joined, forest, policy, tmp_path / "both", plan=plan, **given)[-1]["metrics"]
    assert at_once["clip_ratio/region_mean"] > 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, name: tensors.pop(f"{name}.exp_avg.scale"),
        lambda tensors, name: tensors.update({f"{name}.exp_avg.scale": torch.zeros(3)}),
        lambda tensors, name: tensors.update({"colour.exp_avg.scale": torch.zeros(1)}),
        lambda tensors, name: tensors.update({f"{name}.exp_avg": tensors[f"{name}.exp_avg"].float()}),
    ],
)
def test_a_damaged_file_is_refused_by_name(base, policy, forest, tmp_path, damage):
    run(base, forest, policy, tmp_path / "one", optimizer=EIGHT, lora=LORA)
    file = tmp_path / "one" / OPTIMIZER_FILE
    tensors = {name: value.clone() for name, value in load_file(file).items()}
    name = next(name for name in tensors if name.endswith(".exp_avg.scale")).removesuffix(".exp_avg.scale")
    damage(tensors, name)
    save_file(tensors, file)
    with pytest.raises(HoneWorkerError, match=r"optimizer\.safetensors is damaged") as caught:
        run(base, forest, tmp_path / "one", tmp_path / "two", step=2, optimizer=EIGHT, lora=LORA)
    assert caught.value.code == "bad_checkpoint"


def test_without_the_library_it_says_what_to_install(base, policy, forest, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(HoneWorkerError, match="setup --bitsandbytes") as caught:
        run(base, forest, policy, tmp_path / "one", optimizer=EIGHT, lora=LORA)
    assert caught.value.param == "optimizer"
    run(base, forest, policy, tmp_path / "plain", optimizer=PLAIN, lora=LORA)
