"""What a decode step costs when rows of very different lengths are decoded together: attended over in spans of
similar length, and all over the longest. Run by bench/lengths.ts; prints a JSON line per round, shape and side."""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from hone_worker.base.adapter_files import fresh_adapter
from hone_worker.base.lora import LoraSpec, LoraWeights, default_targets
from hone_worker.base.model import Base, load_base
from hone_worker.engine import spans
from hone_worker.engine.choice import Choice, Stops
from hone_worker.engine.decode import Decoder
from hone_worker.engine.sampling import SamplingParams

SHAPES = {
    "one of 7,000 among 15 of 100": [100] * 15 + [7000],
    "from 60 to 6,700, each 1.37 times the one before": [int(60 * 1.37**i) for i in range(16)],
    "from 60 to 660, each 40 more": [60 + 40 * i for i in range(16)],
    "all of 100": [100] * 16,
}


def milliseconds(base: Base, adapter: LoraWeights, lengths: list[int], steps: int) -> float:
    """Processor time of a step, the median of `steps`, once all rows decode."""
    decoder = Decoder(base, lambda _updates: None, max_rows=64, cache_bytes=1 << 31)
    random = torch.Generator().manual_seed(1)
    for number in torch.randperm(len(lengths), generator=random).tolist():
        choice = Choice(
            index=0,
            prompt=torch.randint(base.vocab_size, (lengths[number],), generator=random).tolist(),
            adapter=adapter,
            sampling=SamplingParams(seed=number),
            stops=Stops(),
            max_tokens=1000,
            tokenizer=base.tokenizer,
        )
        decoder.enqueue([choice])
    while decoder.table.live < len(lengths):
        decoder.step()
    times = []
    for _ in range(steps):
        began = time.process_time()
        decoder.step()
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = load_base(options.base)
    adapter = fresh_adapter(base.model, LoraSpec(16, 32.0, default_targets(base.model)), 1)
    places = spans.PLACES_A_SPAN
    for number in range(options.rounds):
        for shape, lengths in SHAPES.items():
            sides = ["together", "spans"]
            for side in sides if number % 2 == 0 else sides[::-1]:
                # A span that costs more than it can save: all rows attend over the longest, as it was before.
                spans.PLACES_A_SPAN = places if side == "spans" else 1 << 40
                taken = milliseconds(base, adapter, lengths, options.steps)
                print(json.dumps({"shape": shape, "side": side, "milliseconds": taken}), flush=True)


if __name__ == "__main__":
    main()
