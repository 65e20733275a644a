"""`python -m hone_worker.tools.merge --base B --adapter A --out O`: a copy of B with A in its weights, as the hub has models.

The base's own files are only read. Weights are added in float32 and stored in the base's type, rounded to one of
the two nearest values by chance, in proportion: what an adapter adds is mostly less than half of a weight's last
place in bfloat16, and the nearest value would be the base's own, as if there were no adapter. The chances come from
a seed: the same files in, the same files out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import cached_file

from hone_worker.base.adapter_files import read_adapter
from hone_worker.process.errors import HoneWorkerError

# Everything beside the weights goes along: tokenizer, templates, licence.
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}


def merge(base: str, adapter: str | Path, out: str | Path) -> list[str]:
    """Writes the merged model into the new folder `out`; gives the names of its files."""
    source, out = base_folder(base), Path(out)
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise HoneWorkerError("The copy cannot lie in the base's own folder.", code="bad_option", param="out")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise HoneWorkerError(f"Cannot load the base '{base}': {error}", code="bad_base") from error
    weights = read_adapter(adapter, model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for path, (a, b) in sorted(weights.tensors.items()):
            layer: Any = model.get_submodule(path)
            merged = layer.weight.float() + weights.spec.scale * (b @ a)
            kept = rounded(merged, layer.weight.dtype, generator)
            layer.weight = torch.nn.Parameter(kept, requires_grad=False)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    for file in sorted(source.iterdir()):
        weight = file.suffix in WEIGHT_SUFFIXES or file.name.endswith(".index.json")
        if file.is_file() and not weight and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)
    return sorted(file.name for file in out.iterdir())


def rounded(exact: torch.Tensor, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Rounds to a narrower type up or down at random; the nearer value is the likelier, so the mean is right."""
    near = exact.to(dtype)
    rest = exact - near.float()
    if not bool(rest.any()):
        return near
    other = torch.nextafter(near, rest.sign().to(dtype) * torch.inf)
    share = rest / (other.float() - near.float())
    up = torch.rand(share.shape, generator=generator) < share
    return torch.where(up & (rest != 0), other, near)


def base_folder(base: str) -> Path:
    """Where the base's files lie: its own folder, or the hub's cache of it."""
    if Path(base).is_dir():
        return Path(base)
    try:
        config = cached_file(base, "config.json")
    except OSError as error:
        raise HoneWorkerError(f"Cannot find the base '{base}': {error}", code="bad_base") from error
    assert config is not None
    return Path(config).parent


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="hone_worker.tools.merge", description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args(arguments)
    for name in merge(options.base, options.adapter, options.out):
        print(name, flush=True)


if __name__ == "__main__":
    try:
        main()
    except HoneWorkerError as error:
        print(f"{error.code}: {error.message}".replace("\n", " "), file=sys.stderr)
        sys.exit(1)
