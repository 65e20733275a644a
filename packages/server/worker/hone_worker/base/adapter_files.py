"""Adapters on disk, in PEFT's format: what this worker writes, PEFT and vLLM can load."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from hone_worker.base.lora import MAX_RANK, LoraSpec, LoraWeights, target_paths
from hone_worker.process.errors import HoneWorkerError
from hone_worker.process.faults import fault

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."


def _bad(message: str, cause: BaseException | None = None) -> HoneWorkerError:
    error = HoneWorkerError(f"Not a usable adapter: {message}", code="bad_adapter", param="lora_path")
    error.__cause__ = cause
    return error


def fresh_adapter(model: nn.Module, spec: LoraSpec, seed: int) -> LoraWeights:
    """A new adapter as PEFT begins it: A Kaiming-uniform, B zero. It leaves torch's own generator alone."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, tuple[Tensor, Tensor]] = {}
    layers = target_paths(model, spec.target_modules)
    for path in sorted(layers):
        layer = layers[path]
        a = torch.empty(spec.r, layer.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        device = layer.weight.device
        tensors[path] = (a.to(device), torch.zeros(layer.out_features, spec.r, device=device))
    return LoraWeights(spec, tensors)


def write_adapter(folder: str | Path, weights: LoraWeights, base_name: str) -> list[str]:
    """Writes and fsyncs the files and the folder; gives their names.

    It does not make the folder. A server that started meanwhile may have removed it, and then nothing counts.
    """
    folder = Path(folder)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": weights.spec.r,
        "lora_alpha": weights.spec.alpha,
        "lora_dropout": 0.0,
        "target_modules": list(weights.spec.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_dora": False,
        "use_rslora": False,
    }
    tensors: dict[str, Tensor] = {}
    for path in sorted(weights.tensors):
        a, b = weights.tensors[path]
        tensors[f"{PREFIX}{path}.lora_A.weight"] = a.detach().to("cpu", torch.float32).contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = b.detach().to("cpu", torch.float32).contiguous()
    write_durably(folder / CONFIG_FILE, json.dumps(config, indent=2).encode())
    write_durably(folder / WEIGHTS_FILE, safetensors.torch.save(tensors, {"format": "pt"}))
    sync_folder(folder)
    return [CONFIG_FILE, WEIGHTS_FILE]


def write_durably(path: Path, data: bytes) -> None:
    fault("worker.file-begin")
    with open(path, "wb") as file:
        half = len(data) // 2
        file.write(data[:half])
        file.flush()
        fault("worker.file-half")
        file.write(data[half:])
        file.flush()
        os.fsync(file.fileno())
    fault("worker.file-end")


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_adapter(folder: str | Path, base_model: nn.Module) -> LoraWeights:
    """The adapter in a folder, checked against the base: names, shapes, rank, finite numbers."""
    folder = Path(folder)
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if not config_path.is_file():
        message = f"No adapter found at {folder}: it holds no {CONFIG_FILE}."
        raise HoneWorkerError(message, code="adapter_not_found", status=404, param="lora_path")
    if not weights_path.is_file():
        raise _bad(f"there is no {WEIGHTS_FILE}. Only safetensors is read.")
    spec = _read_spec(config_path)
    try:
        stored = safetensors.torch.load(weights_path.read_bytes())
    except Exception as error:
        raise _bad(f"{WEIGHTS_FILE} is damaged or not safetensors.", error) from error
    try:
        layers = target_paths(base_model, spec.target_modules)
    except HoneWorkerError as error:
        raise _bad(error.message, error) from error
    return LoraWeights(spec, _check_tensors(stored, layers, spec))


def _read_spec(path: Path) -> LoraSpec:
    try:
        config: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise _bad(f"{CONFIG_FILE} is not JSON.", error) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _bad("peft_type must be LORA.")
    for name in ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern",
                 "layers_to_transform", "lora_bias", "fan_in_fan_out", "exclude_modules"):  # fmt: skip
        if config.get(name):
            raise _bad(f"{name} is not supported. Train it without.")
    if config.get("bias", "none") != "none":
        raise _bad("bias must be 'none'.")
    r, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if not isinstance(r, int) or isinstance(r, bool) or not 1 <= r <= MAX_RANK:
        raise _bad(f"r must be an integer from 1 to {MAX_RANK}.")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < float("inf"):
        raise _bad("lora_alpha must be a positive number.")
    if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
        raise _bad("target_modules must be a list of names.")
    return LoraSpec(r, float(alpha), tuple(targets))


def _check_tensors(
    stored: dict[str, Tensor], layers: dict[str, nn.Linear], spec: LoraSpec
) -> dict[str, tuple[Tensor, Tensor]]:
    expected: dict[str, tuple[int, int]] = {}
    for path, layer in layers.items():
        expected[f"{PREFIX}{path}.lora_A.weight"] = (spec.r, layer.in_features)
        expected[f"{PREFIX}{path}.lora_B.weight"] = (layer.out_features, spec.r)
    unknown = sorted(set(stored) - set(expected))
    missing = sorted(set(expected) - set(stored))
    if unknown:
        raise _bad(f"the base has no place for {unknown[0]} ({len(unknown)} such tensors).")
    if missing:
        raise _bad(f"{missing[0]} is missing ({len(missing)} such tensors).")
    ready: dict[str, Tensor] = {}
    for name, shape in expected.items():
        tensor = stored[name]
        if tuple(tensor.shape) != shape:
            raise _bad(f"{name} has shape {tuple(tensor.shape)}, the base and r need {shape}.")
        if not tensor.dtype.is_floating_point or not bool(torch.isfinite(tensor.float()).all()):
            raise _bad(f"{name} holds values that are not finite numbers.")
        ready[name] = tensor.to(torch.float32).clone()
    return {
        path: (
            ready[f"{PREFIX}{path}.lora_A.weight"].to(layer.weight.device),
            ready[f"{PREFIX}{path}.lora_B.weight"].to(layer.weight.device),
        )
        for path, layer in layers.items()
    }
