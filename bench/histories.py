"""What keeping histories by memory saves: more rollouts than rows, with room for histories beside the rows and
without. Run by bench/histories.ts; prints a JSON line per round and side."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from hone_worker.base.adapter_files import fresh_adapter
from hone_worker.base.lora import LoraSpec, LoraWeights, default_targets
from hone_worker.base.model import Base, load_base
from hone_worker.engine.choice import Choice, Stops, Update
from hone_worker.engine.decode import Decoder
from hone_worker.engine.sampling import SamplingParams
from hone_worker.engine.slots import SlotTable


class Rollouts:
    """Each sends its next turn as soon as it has the answer to the one before."""

    def __init__(self, base: Base, adapter: LoraWeights, options: argparse.Namespace) -> None:
        self.base, self.adapter, self.options = base, adapter, options
        self.random = torch.Generator().manual_seed(1)
        self.turns = [0] * options.rollouts
        self.needed = 0
        self.ended: list[Update] = []
        self.decoder = Decoder(
            base, self.ended.extend, max_rows=options.rows, cache_bytes=options.cache_mib << 20
        )
        for number in range(options.rollouts):
            self.send(number, self.ids(options.prompt), options.prompt - 1)

    def ids(self, count: int) -> list[int]:
        return torch.randint(self.base.vocab_size, (count,), generator=self.random).tolist()

    def send(self, number: int, ids: list[int], new: int) -> None:
        self.needed += new
        choice = Choice(
            index=0,
            prompt=ids,
            adapter=self.adapter,
            sampling=SamplingParams(seed=1000 * number + self.turns[number]),
            stops=Stops(),
            max_tokens=self.options.sampled,
            tokenizer=self.base.tokenizer,
            owner=number,
        )
        self.decoder.enqueue([choice])

    def run(self) -> dict[str, Any]:
        began = time.process_time()
        while self.decoder.has_work():
            self.decoder.step()
            ended, self.ended[:] = list(self.ended), []
            for update in ended:
                if update.error is not None:
                    raise update.error
                number = update.choice.owner
                self.turns[number] += 1
                if self.turns[number] < self.options.turns:
                    # The last token sampled was not computed yet, the message's last one is decoded.
                    self.send(number, update.choice.ids + self.ids(self.options.new), self.options.new)
        seconds = time.process_time() - began
        return {
            "prefilled": self.decoder.tokens_prefilled,
            "needed": self.needed,
            "evicted": self.decoder.reuse.evicted,
            "sampled_per_cpu_second": self.decoder.tokens_decoded / seconds,
            "kept_mib": self.decoder.table.kept_bytes / 2**20,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True)
    parser.add_argument("--rollouts", type=int, default=96)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=60)
    parser.add_argument("--new", type=int, default=20)
    parser.add_argument("--sampled", type=int, default=12)
    parser.add_argument("--cache-mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = load_base(options.base)
    adapter = fresh_adapter(base.model, LoraSpec(16, 32.0, default_targets(base.model)), 1)
    room = SlotTable._history_tokens
    for number in range(options.rounds):
        sides = ["rows", "memory"]
        for side in sides if number % 2 == 0 else sides[::-1]:
            # No room beside the rows: a history goes when its row is taken, as it was before there were any.
            SlotTable._history_tokens = room if side == "memory" else lambda *_: 0  # type: ignore[method-assign]
            print(json.dumps({"side": side, **Rollouts(base, adapter, options).run()}), flush=True)


if __name__ == "__main__":
    main()
