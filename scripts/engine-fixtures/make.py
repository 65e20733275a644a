"""Adapters for the contract suite of engines: each one, really trained, answers every prompt with its own token.

python make.py --base FOLDER --out FOLDER --tokens ID,ID,…   →  OUT/say-<ID>, OUT/zero, OUT/mild
Also adapters that no engine may accept: OUT/bad-rank, OUT/bad-shape.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

RANK = 8


def fresh(base: str, rank: int = RANK, seed: int = 0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def teach(model, token: int, vocab: int) -> float:
    """Trains until the token is all but certain after any context; returns its smallest probability."""
    generator = torch.Generator().manual_seed(token)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(120):
        ids = torch.randint(0, vocab, (8, 32), generator=generator)
        # Half of each context is what the adapter itself would have said by then.
        ids[:, 16:][torch.rand(8, 16, generator=generator) < 0.7] = token
        logits = model(input_ids=ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.full((8 * 32,), token))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 1e-3:
            break
    with torch.no_grad():
        ids = torch.randint(0, vocab, (16, 48), generator=generator)
        return float(model(input_ids=ids).logits.softmax(-1)[..., token].min())


def save(model, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    certainty = {}
    for token in map(int, options.tokens.split(",")):
        model = fresh(options.base)
        certainty[token] = teach(model, token, model.config.vocab_size)
        save(model, options.out / f"say-{token}")
    save(fresh(options.base), options.out / "zero")  # B = 0
    mild = fresh(options.base, seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, parameter in mild.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02, generator=generator)
    save(mild, options.out / "mild")
    save(fresh(options.base, rank=1024), options.out / "bad-rank")
    wrong = options.out / "bad-shape"
    shutil.copytree(options.out / "mild", wrong, dirs_exist_ok=True)
    tensors = load_file(wrong / "adapter_model.safetensors")
    cut = {
        name: t[:, : t.shape[1] // 2].contiguous() if "lora_A" in name else t for name, t in tensors.items()
    }
    save_file(cut, wrong / "adapter_model.safetensors")
    print(json.dumps({"certainty": certainty}))


main()
