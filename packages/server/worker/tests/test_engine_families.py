"""Other model families and bfloat16 through the same decoder, each against its own plain forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_tokenizer
from test_engine_decode import Run, prompt_of
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from hone_worker.base.adapter_files import fresh_adapter
from hone_worker.base.lora import LoraSpec, default_targets
from hone_worker.base.model import load_base
from hone_worker.process.errors import HoneWorkerError

SHAPE: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 257,
    "bos_token_id": None,
    "eos_token_id": 256,
}
ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


def save(config: PreTrainedConfig, folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (LlamaConfig(**SHAPE, tie_word_embeddings=False), "float32"),
        (LlamaConfig(**SHAPE, rope_parameters=ROPE), "float32"),
        (Qwen2Config(**SHAPE), "float32"),
        (MistralConfig(**SHAPE, sliding_window=None), "float32"),
        (Phi3Config(**SHAPE), "float32"),
        (Gemma3TextConfig(**SHAPE, sliding_window=256), "float32"),
        (Qwen3Config(**SHAPE), "bfloat16"),
    ],
    ids=["llama", "llama-dynamic-rope", "qwen2", "mistral", "phi3", "gemma3", "qwen3-bf16"],
)
def test_a_family_agrees_with_its_own_forward(config: PreTrainedConfig, dtype: str, tmp_path: Path) -> None:
    base = load_base(str(save(config, tmp_path)), dtype=dtype, served_name="f")
    adapter = fresh_adapter(base.model, LoraSpec(4, 8.0, default_targets(base.model)), 1)
    for _a, b in adapter.tensors.values():
        b.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    run = Run(base)
    made = [
        run.add(prompt_of(9 + 20 * i, i), (None, adapter)[i % 2], max_tokens=20, seed=i) for i in range(4)
    ]
    run.finish()
    limit = 1e-3 if dtype == "float32" else 0.25
    for choice in made:
        update = run.of(choice)
        ids = torch.tensor([choice.prompt + update.token_ids])
        with torch.no_grad(), base.router.single(choice.adapter):
            logits = base.model(ids, use_cache=False).logits[0, len(choice.prompt) - 1 : -1].float()
        expected = logits.log_softmax(-1).gather(1, ids[0, len(choice.prompt) :].unsqueeze(1)).squeeze(1)
        assert (expected - torch.tensor(update.logprobs)).abs().max() <= limit


def test_training_still_works_after_decoding_with_rope_that_changes(tmp_path: Path) -> None:
    """Decoding runs in inference mode; what it leaves in the model must not break autograd."""
    base = load_base(str(save(LlamaConfig(**SHAPE, rope_parameters=ROPE), tmp_path)), served_name="f")
    run = Run(base)
    run.add(prompt_of(30, 1), max_tokens=220)
    run.finish()
    weights = fresh_adapter(base.model, LoraSpec(), 1).trainable()
    with base.router.single(weights):
        base.model(torch.tensor([prompt_of(200, 2)]), use_cache=False).logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in weights.parameters())


def test_what_cannot_be_served_rightly_is_refused(tmp_path: Path) -> None:
    folder = save(MistralConfig(**SHAPE, sliding_window=64), tmp_path)
    assert load_base(str(folder)).max_model_len == 64
    with pytest.raises(HoneWorkerError):
        load_base(str(folder), max_model_len=65)


def test_a_base_that_caps_its_attention_logits_is_refused(tmp_path):
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
    )
    config.save_pretrained(tmp_path)
    with pytest.raises(HoneWorkerError) as refused:
        load_base(str(tmp_path))
    assert refused.value.code == "unsupported_base"
