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
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import cached_file

from hone_worker.base.adapter_files import read_adapter
from hone_worker.base.score_head import read_head
from hone_worker.process.errors import HoneWorkerError

# Everything beside the weights goes along: tokenizer, templates, licence.
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}

#: What the one label of a reward model is called, here and at `/v1/score`.
LABEL = "score"


def merge(base: str, adapter: str | Path, out: str | Path) -> list[str]:
    """Writes the merged model into the new folder `out`; gives the names of its files."""
    source, out = _folders(base, out)
    model = _merged(base, adapter)
    return _save(model, source, out)


def merge_classifier(base: str, policy: str | Path, out: str | Path) -> list[str]:
    """The same as a sequence classifier with one label: the body of the merged model, and the policy's scalar head."""
    source, out = _folders(base, out)
    causal = _merged(base, policy)
    head = read_head(Path(policy), causal)
    if head is None:
        raise HoneWorkerError(
            "The policy has no head that gives scores. Export it without --classifier, or train one with "
            "model.bradleyTerry(pairs).",
            code="no_head",
        )
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    config: Any = type(causal.config).from_dict({**causal.config.to_dict(), "num_labels": 1})
    config.id2label, config.label2id = {0: LABEL}, {LABEL: 0}
    pad = padding_of(tokenizer)
    config.get_text_config().pad_token_id = config.pad_token_id = pad
    try:
        model = AutoModelForSequenceClassification.from_config(config, dtype=causal.dtype)
        model.base_model.load_state_dict(causal.base_model.state_dict())
    except (ValueError, RuntimeError) as error:
        message = f"transformers makes no sequence classifier of '{base}': {error}"
        raise HoneWorkerError(message, code="bad_base") from error
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        message = f"The classifier that transformers makes of '{base}' has no `score` for the head."
        raise HoneWorkerError(message, code="bad_base")
    with torch.no_grad():
        model.score.weight.copy_(head)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    return _save(model, source, out)


def padding_of(tokenizer: Any) -> int:
    """A token that ends no conversation: a classifier reads the last one that is no padding."""
    ends: set[int] = set()
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
        for part in (messages[:1], messages):
            with suppress(Exception):  # a template may want more than this of a conversation
                text = tokenizer.apply_chat_template(part, tokenize=False)
                ends.update(tokenizer(text, add_special_tokens=False)["input_ids"][-1:])
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, *sorted(tokenizer.all_special_ids))
    added = sorted(tokenizer.get_added_vocab().values())
    found = next((i for i in (*candidates, *added) if i is not None and i not in ends), None)
    if found is None:
        raise HoneWorkerError(
            "The tokenizer has no token to pad with. Add one to the base's tokenizer.", code="bad_base"
        )
    return int(found)


def _folders(base: str, out: str | Path) -> tuple[Path, Path]:
    source, out = base_folder(base), Path(out)
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise HoneWorkerError("The copy cannot lie in the base's own folder.", code="bad_option", param="out")
    return source, out


def _merged(base: str, adapter: str | Path) -> Any:
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
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
    return model


def _save(model: Any, source: Path, out: Path) -> list[str]:
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
    parser.add_argument("--classifier", action="store_true", help="with the policy's head, as a classifier")
    options = parser.parse_args(arguments)
    make = merge_classifier if options.classifier else merge
    for name in make(options.base, options.adapter, options.out):
        print(name, flush=True)


if __name__ == "__main__":
    try:
        main()
    except HoneWorkerError as error:
        print(f"{error.code}: {error.message}".replace("\n", " "), file=sys.stderr)
        sys.exit(1)
