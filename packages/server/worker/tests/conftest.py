"""A tiny random Qwen3 with a byte-level tokenizer, and adapters whose B is not zero."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from train_reference import Forest
from train_tiny import grown_forest, sample_logprobs, save_policy, trained_adapter
from train_tiny import tiny_base as train_tiny_base
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.lora import LoraSpec
from hone_worker.base.model import Base, load_base

SPECIAL = ["<|end|>", "<|pad|>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, so that sampled text has incomplete UTF-8 in it all the time."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    return tokenizer


def save_tiny_base(
    folder: Path, *, layers: int = 2, hidden: int = 64, vocab: int = 264, positions: int = 512
) -> Path:
    tokenizer = tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=positions,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(base: Base, folder: Path, seed: int, *, r: int = 4, strength: float = 0.1) -> Path:
    """A fresh adapter with B drawn too, so that it changes what the model says."""
    weights = fresh_adapter(base.model, LoraSpec(r=r, alpha=2.0 * r), seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    for _a, b in weights.tensors.values():
        b.normal_(0, strength, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    write_adapter(folder, weights, base.name)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("tiny-base"))


@pytest.fixture(scope="session")
def tiny_base(tiny_folder: Path) -> Base:
    torch.set_num_threads(1)
    return load_base(str(tiny_folder), served_name="tiny")


@pytest.fixture(scope="session")
def adapter_folders(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of different rank."""
    root = tmp_path_factory.mktemp("adapters")
    return [save_adapter(tiny_base, root / "one", 1), save_adapter(tiny_base, root / "two", 2, r=8)]


@pytest.fixture(scope="module")
def base() -> Base:
    """What the trainer's tests train; a file with another base has a fixture of its own."""
    return train_tiny_base()


@pytest.fixture
def policy(base, tmp_path):
    """The folder of a trained policy of the module's `base`."""
    return save_policy(tmp_path / "policy", base, trained_adapter(base))


@pytest.fixture
def forest(policy) -> Forest:
    """Rollouts whose sampler is somewhat off the policy; a file with others has a fixture of its own."""
    forest = grown_forest()
    sample_logprobs(forest, policy, noise=0.3)
    return forest
