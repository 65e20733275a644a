"""A reward model and what transformers alone makes of it: `python reward_model.py BASE OUT`.

A sequence classifier of random weights from a fixed seed, with BASE's tokenizer and chat template, is written to
OUT. Standard input is a JSON list of conversations; standard output the logit of each, one forward a conversation.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification


@torch.no_grad()
def main(base: str, out: str) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        initializer_range=0.3,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Qwen3ForSequenceClassification(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    model = Qwen3ForSequenceClassification.from_pretrained(out).eval()
    logits = []
    for messages in json.load(sys.stdin):
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        logits.append(float(model(torch.tensor([ids])).logits[0, 0]))
    print(json.dumps(logits))


main(*sys.argv[1:])
