"""A small Qwen3 with random weights, for bases that a script makes."""

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM


def small_qwen3(tokenizer, seed: int, **shape) -> Qwen3ForCausalLM:
    """`shape` is Qwen3Config's: sizes, layers, heads, positions. Turns end at <|im_end|>."""
    torch.manual_seed(seed)
    end, pad = map(tokenizer.token_to_id, ("<|im_end|>", "<|endoftext|>"))
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=tokenizer.get_vocab_size(),
            tie_word_embeddings=True,
            initializer_range=0.05,
            eos_token_id=end,
            pad_token_id=pad,
            bos_token_id=None,
            **shape,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
    return model
