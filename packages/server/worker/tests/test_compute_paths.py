"""The switches between ways to compute: who is refused, what a device gets, and that every way trains the same."""

from dataclasses import fields

import pytest
import torch
import train_reference as reference
from safetensors.torch import load_file
from test_packing import random_forest
from train_tiny import save_policy, tiny_model, train, trained_adapter

from hone_worker.base.adapter_files import WEIGHTS_FILE
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.model import Base, wrap_base
from hone_worker.base.products import wide_kernels
from hone_worker.packing.attention import register
from hone_worker.process.errors import HoneWorkerError
from hone_worker.worker import parse_arguments

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def base_with(paths: ComputePaths, dtype=torch.float32) -> Base:
    model = tiny_model(dtype)
    model.set_attn_implementation(register())
    return wrap_base(model, None, "tiny", 2048, paths)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("attention=flash", "ranges, masked, varlen, flex"),
        ("attn=flex", "attention, lora, layer, decode, loss_chunk, optimizer"),
        ("layer=auto-cast", "eager, compiled, fused"),
        ("loss_chunk=many", "number of rows"),
        ("loss_chunk=0", "1 or more"),
        ("lora=joined,lora=module", "twice"),
        ("decode", "auto, eager, graph"),
    ],
)
def test_a_wrong_name_is_refused_with_those_there_are(text, told):
    with pytest.raises(HoneWorkerError, match=told) as refused:
        ComputePaths.parse(text)
    assert refused.value.code == "bad_option"


def test_one_flag_sets_them():
    options = parse_arguments(["--base", "x", "--paths", "attention=masked, loss_chunk=7,optimizer=fused"])
    assert ComputePaths.parse(options.paths) == ComputePaths("masked", loss_chunk=7, optimizer="fused")
    assert ComputePaths.parse("") == ComputePaths()


def test_the_device_decides_what_was_not_asked_for_and_refuses_what_it_cannot_do():
    found = ComputePaths().resolved(CPU, torch.float32)
    products = "onednn" if wide_kernels() else "mkl"
    assert found == ComputePaths("ranges", "module", "fused", "eager", 256, "loop", products)
    assert ComputePaths().resolved(CPU, torch.bfloat16).layer == "eager"
    on_gpu = ComputePaths().resolved(CUDA, torch.bfloat16)
    assert on_gpu.optimizer == "fused" and on_gpu.loss_chunk == 2048
    for paths in (found, on_gpu):
        assert all(getattr(paths, field.name) not in ("auto", None) for field in fields(paths))
    for text, device, dtype in (
        ("attention=ranges", CUDA, torch.bfloat16),
        ("attention=varlen", CUDA, torch.float32),
        ("decode=graph", CPU, torch.float32),
        ("layer=fused", CPU, torch.bfloat16),
        ("layer=fused", CUDA, torch.float32),
    ):
        with pytest.raises(HoneWorkerError, match=text):
            ComputePaths.parse(text).resolved(device, dtype)


@pytest.mark.parametrize(
    "text",
    [
        "optimizer=foreach",
        "optimizer=fused",
        "loss_chunk=3",
        "attention=masked",
        "layer=eager",
        "products=onednn",
    ],
)
def test_every_way_trains_the_same(tmp_path, text):
    """Two operations, so that moments that were written are read back."""
    plain = base_with(ComputePaths())
    forest = random_forest(5)
    options = {"optimizer": {"learning_rate": 1e-3, "max_grad_norm": 1e-3}, "packing": "tree"}
    start = trained_adapter(plain)
    results = []
    for number, base in enumerate((plain, base_with(ComputePaths.parse(text)))):
        folder = save_policy(tmp_path / f"{number}-0", base, start)
        for step in (1, 2):
            given = reference.config(plan=[[forest.leaves()]], **options)
            given |= {"checkpoint": str(folder), "staging": str(tmp_path / f"{number}-{step}"), "step": step}
            metrics = train(base, forest, given)["metrics"]
            folder = tmp_path / f"{number}-{step}"
        results.append((load_file(folder / WEIGHTS_FILE), metrics))
    (wanted, metrics), (found, their) = results
    assert their["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-5)
    before = {
        f"base_model.model.{p}.lora_{s}.weight": t
        for p, w in start.tensors.items()
        for s, t in zip("AB", w, strict=True)
    }
    for name, tensor in wanted.items():
        moved = tensor - before[name]
        # Moments scale every gradient to 1, and so the rounding of small ones up.
        assert (found[name] - tensor).norm() <= 1e-2 * moved.norm(), name
