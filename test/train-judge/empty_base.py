"""`python empty_base.py OUT`: a base that knows nothing, for which a judge's tags and marks are tokens of their own."""

import json
import sys
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "make-base"))
from tokenizer import SPLIT, build, pieces, save

out = Path(sys.argv[1])
out.mkdir(parents=True)
tokenizer = build(
    [*pieces(), "<score>", "</score>", *map(str, range(5))], rf"</?score>|{SPLIT}"
)
save(out, tokenizer)
(out / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
end, pad = map(tokenizer.token_to_id, ("<|im_end|>", "<|endoftext|>"))
torch.manual_seed(0)
model = Qwen3ForCausalLM(
    Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        initializer_range=0.05,
        eos_token_id=end,
        pad_token_id=pad,
        bos_token_id=None,
    )
)
model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad)
model.save_pretrained(out)
(out / "model.safetensors").chmod(0o644)
