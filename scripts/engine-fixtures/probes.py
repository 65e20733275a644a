"""What an engine has to answer with an adapter, as the trainer computes it.

python probes.py --base FOLDER ADAPTER…   →  one JSON object on standard output: {adapter's folder: probe}
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from hone_worker.base.model import load_base
from hone_worker.train.probe import probe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("adapters", nargs="+", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = load_base(options.base, dtype="float32")
    print(json.dumps({str(folder): probe(base, folder) for folder in options.adapters}))


main()
