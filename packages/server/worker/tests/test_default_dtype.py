"""Which type a base computes in where nobody says so: by its size and by what the processor has."""

from pathlib import Path

import pytest
import torch
from conftest import save_tiny_base
from transformers import AutoConfig, LlamaConfig

from hone_worker.base import default_dtype as module
from hone_worker.base.default_dtype import LEAST, default_dtype, parameters_of
from hone_worker.base.model import load_base

CPU = torch.device("cpu")
#: SmolLM2-135M's.
LARGE = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
)
ONE_MILLION = Path(__file__).parents[4] / "models" / "hone-2048-1m"


@pytest.fixture(params=[True, False])
def fast(request, monkeypatch) -> bool:
    monkeypatch.setattr(module, "has_bfloat16", lambda: request.param)
    return request.param


def test_a_large_base_is_bfloat16_where_the_processor_has_it(fast):
    assert parameters_of(LARGE) == 134_515_008 >= LEAST
    assert default_dtype(LARGE, CPU) == (torch.bfloat16 if fast else torch.float32)
    small = AutoConfig.from_pretrained(ONE_MILLION)
    assert default_dtype(small, CPU) == torch.float32
    assert default_dtype(small, torch.device("cuda")) == torch.bfloat16


def test_the_processor_is_asked_for_what_its_flags_say():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert module.has_bfloat16() == ("avx512_bf16" in flags)


@pytest.mark.parametrize("given", [None, "bfloat16"])
def test_a_base_is_loaded_as_what_was_chosen(fast, monkeypatch, tmp_path, given):
    monkeypatch.setattr(module, "LEAST", 1000)
    folder = save_tiny_base(tmp_path / "base")
    wanted = torch.bfloat16 if given or fast else torch.float32
    base = load_base(str(folder), dtype=given)
    assert base.dtype == wanted and all(p.dtype == wanted for p in base.model.parameters())
