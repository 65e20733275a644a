"""python scripts/make-base/make.py models/hone-2048-1m: tokenizer, training, evaluation, card. About 8 minutes of one core."""

import argparse
import json
import time
from pathlib import Path

import torch
import transformers

import card
from tokenizer import build, pieces, save
from train import train

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the updates, to try things out")
    parser.add_argument("--card-only", action="store_true", help="evaluate what the folder holds")
    options = parser.parse_args()
    folder: Path = options.folder
    if not options.card_only:
        folder.mkdir(parents=True, exist_ok=True)
        began = time.time()
        tokenizer = save(folder, build(pieces()))
        (folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
        train(tokenizer.backend_tokenizer, folder, seed=options.seed, scale=options.scale)
        made = {
            "seconds": round(time.time() - began),
            "seed": options.seed,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        }
        (folder / "training.json").write_text(json.dumps(made) + "\n")
        (folder / "model.safetensors").chmod(0o644)
    card.write(folder)
