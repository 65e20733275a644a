"""`python empty_base.py OUT`: a base that knows nothing, for which a judge's tags and marks are tokens of their own."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "make-base"))
from small_qwen3 import small_qwen3
from tokenizer import SPLIT, build, pieces, save

out = Path(sys.argv[1])
out.mkdir(parents=True)
tokenizer = build(
    [*pieces(), "<score>", "</score>", *map(str, range(5))], rf"</?score>|{SPLIT}"
)
save(out, tokenizer)
(out / "hone.json").write_text(json.dumps({"renderer": "lean"}) + "\n")
model = small_qwen3(
    tokenizer,
    0,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=8192,
)
model.save_pretrained(out)
(out / "model.safetensors").chmod(0o644)
