"""Adapters that each always say one letter: `python say_token.py BASE OUT abc…` writes OUT/a, OUT/b, ….

They are trained (a few steps of cross-entropy on the letter repeated), so every LoRA tensor is non-zero
and the letter comes at temperature 0 at any length; two of them can never answer alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.lora import LoraSpec, default_targets
from hone_worker.base.model import load_base

LENGTH = 384
PROMPTS = ("Say a word.", "Count the stars for me, please.")


def main(base_path: str, out: str, letters: str) -> None:
    torch.set_num_threads(1)
    base = load_base(base_path, device="cpu", dtype="float32", served_name="base", max_model_len=4096)
    # The shape of a model's default adapter: an import must match the model that it joins.
    spec = LoraSpec(r=16, alpha=32, target_modules=default_targets(base.model))
    for seed, letter in enumerate(letters):
        (token,) = base.tokenizer.encode(letter, add_special_tokens=False)
        weights = fresh_adapter(base.model, spec, seed).trainable()
        optimizer = torch.optim.AdamW(weights.parameters(), lr=5e-3, weight_decay=0)
        for step in range(40):
            prompt = base.tokenizer.apply_chat_template(
                [{"role": "user", "content": PROMPTS[step % 2]}], add_generation_prompt=True, return_dict=False
            )
            length = LENGTH if step % 8 == 7 else 24
            ids = torch.tensor([[*prompt, *[token] * length]])
            with base.router.single(weights):
                logits = base.model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits.float(), ids[0, len(prompt) :])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # The head is tied and its input normed, so the loss has a floor; what counts is the most likely token.
        if not bool((logits.argmax(-1) == token).all()):
            raise SystemExit(f"the adapter for {letter!r} did not learn its letter: loss {loss.item():.3f}")
        folder = Path(out) / letter
        folder.mkdir(parents=True)
        write_adapter(folder, weights.frozen(), "base")


if __name__ == "__main__":
    main(*sys.argv[1:4])
