"""What a policy needs to be trained on: optimizer moments and counters, beside its adapter."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from hone_worker.base.adapter_files import sync_folder, write_adapter, write_durably
from hone_worker.base.lora import LoraWeights
from hone_worker.process.errors import HoneWorkerError

OPTIMIZER_FILE = "optimizer.safetensors"
TRAINER_FILE = "trainer.json"


#: Numbers of a moment in 8 bits that share a scale.
BLOCK = 256


@dataclass(frozen=True)
class Moments:
    """AdamW's state. `updates` counts the updates in the moments, which the bias correction needs."""

    updates: int
    exp_avg: dict[str, torch.Tensor]
    exp_avg_sq: dict[str, torch.Tensor]
    #: Of moments in 8 bits, by `<name>.exp_avg` and `<name>.exp_avg_sq`: the largest of each block.
    scales: dict[str, torch.Tensor] = field(default_factory=dict)

    def on(self, device: torch.device) -> Moments:
        """Copies: what is loaded may be the file itself, in pages of memory."""

        def copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: values.to(device, copy=True) for name, values in tensors.items()}

        return Moments(self.updates, copied(self.exp_avg), copied(self.exp_avg_sq), copied(self.scales))


@dataclass(frozen=True)
class Counters:
    """What has been counted over a model's life."""

    optimizer_steps: int
    num_tokens: int


def parameter_names(weights: LoraWeights) -> list[str]:
    return [f"{path}.lora_{side}.weight" for path in sorted(weights.tensors) for side in "AB"]


def read_moments(
    folder: Path, parameters: dict[str, torch.Tensor], name: str = OPTIMIZER_FILE
) -> Moments | None:
    """The moments saved with a policy; None for one that was never trained (fresh or imported)."""
    file = folder / name
    if not file.exists():
        return None
    try:
        tensors = load_file(file)
        updates = int(tensors.pop("updates"))
        moments = Moments(
            updates,
            {name: tensors.pop(f"{name}.exp_avg") for name in parameters},
            {name: tensors.pop(f"{name}.exp_avg_sq") for name in parameters},
            {
                name.removesuffix(".scale"): tensors.pop(name)
                for name in list(tensors)
                if name.endswith(".scale")
            },
        )
    except (OSError, SafetensorError, KeyError) as cause:
        raise _bad(file, f"it cannot be read: {cause!r}") from cause
    if tensors:
        raise _bad(file, f"it holds `{next(iter(tensors))}`, which the adapter has not")
    scales = dict(moments.scales)
    for name, parameter in parameters.items():
        for key, moment in (("exp_avg", moments.exp_avg[name]), ("exp_avg_sq", moments.exp_avg_sq[name])):
            scale = scales.pop(f"{name}.{key}", None)
            blocks = -(-parameter.numel() // BLOCK)
            whole = scale is None or (scale.shape == (blocks,) and scale.dtype == torch.float32)
            wanted = torch.float32 if scale is None else torch.uint8
            if moment.shape != parameter.shape or moment.dtype != wanted or not whole:
                raise _bad(file, f"`{name}` has another shape or type than the adapter's")
    if scales:
        raise _bad(file, f"it holds `{next(iter(scales))}.scale`, which the adapter has not")
    return moments


def read_counters(folder: Path) -> Counters:
    """The counts of a policy; all 0 for one that was never trained."""
    file = folder / TRAINER_FILE
    if not file.exists():
        return Counters(0, 0)
    try:
        values = json.loads(file.read_text())
        # Policies from before tokens were counted have no count of them.
        counts = {"num_tokens": 0, **values}
        counters = Counters(counts["optimizer_steps"], counts["num_tokens"])
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise _bad(file, f"it cannot be read: {cause!r}") from cause
    for name, count in asdict(counters).items():
        if type(count) is not int or count < 0:
            raise _bad(file, f"`{name}` must be a count")
    return counters


def write_checkpoint(
    folder: Path, weights: LoraWeights, base_name: str, moments: Moments, trainer: dict[str, int]
) -> list[str]:
    """Every file of a policy, each on disk when this returns. The server writes the manifest and renames."""
    files = list(write_adapter(folder, weights, base_name))
    write_durably(folder / OPTIMIZER_FILE, save(moment_tensors(moments)))
    write_durably(folder / TRAINER_FILE, (json.dumps(trainer, sort_keys=True) + "\n").encode())
    sync_folder(folder)
    return sorted({*files, OPTIMIZER_FILE, TRAINER_FILE})


def moment_tensors(moments: Moments) -> dict[str, torch.Tensor]:
    """As a file holds them."""
    tensors = {"updates": torch.tensor(moments.updates, dtype=torch.int64)}
    for name in moments.exp_avg:
        tensors[f"{name}.exp_avg"] = moments.exp_avg[name].cpu().contiguous()
        tensors[f"{name}.exp_avg_sq"] = moments.exp_avg_sq[name].cpu().contiguous()
    for name, scale in moments.scales.items():
        tensors[f"{name}.scale"] = scale.cpu().contiguous()
    return tensors


def open_staging(folder: Path) -> None:
    """The folder that the server named, empty: whatever lies there was left by an operation that failed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = next(folder.iterdir(), None)
    except OSError as cause:
        raise HoneWorkerError(
            f"The staging folder cannot be written: {cause.strerror}.", code="bad_staging", param="staging"
        ) from cause
    if occupied is not None:
        raise HoneWorkerError(
            "The staging folder is not empty. Name a folder that no other operation has used.",
            code="bad_staging",
            param="staging",
        )


def clear_staging(folder: Path) -> None:
    if not folder.is_dir():  # another server removed it: its own worker trains now
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    sync_folder(folder)


def _bad(file: Path, why: str) -> HoneWorkerError:
    return HoneWorkerError(
        f"The checkpoint's {file.name} is damaged: {why}. Train from another policy, or restore the file.",
        code="bad_checkpoint",
        param="checkpoint",
    )
