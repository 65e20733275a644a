"""python scripts/make-base/make.py models/hone-2048-1m: tokenizer, training, evaluation, card. About 8 minutes of one core."""

import argparse
import json
import time
from pathlib import Path

from tokenizer import save
from train import train

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the updates, to try things out")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    began = time.time()
    tokenizer = save(options.folder)
    (options.folder / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
    train(tokenizer.backend_tokenizer, options.folder, seed=options.seed, scale=options.scale)
    print(f"trained in {time.time() - began:.0f} s")
