"""A merged copy says what base and adapter say together, and the base is not touched."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.lora import LoraSpec, LoraWeights, default_targets
from hone_worker.process.errors import HoneWorkerError
from hone_worker.tools.merge import merge

BASE = Path(__file__).parents[4] / "models" / "hone-2048-1m"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the model says: B is not zero."""
    model = AutoModelForCausalLM.from_pretrained(BASE)
    fresh = fresh_adapter(model, LoraSpec(8, 16, default_targets(model)), 1)
    generator = torch.Generator().manual_seed(2)
    tensors = {
        p: (a, torch.randn(b.shape, generator=generator) * 0.05) for p, (a, b) in fresh.tensors.items()
    }
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(folder, LoraWeights(fresh.spec, tensors), "hone-2048-1m")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir() if f.is_file()}


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


def test_merged_logits_are_those_of_base_and_adapter(adapter: Path, tmp_path: Path) -> None:
    before = hashes(BASE)
    out = tmp_path / "merged"
    command = [sys.executable, "-m", "hone_worker.tools.merge", "--base", str(BASE)]
    done = subprocess.run(
        [*command, "--adapter", str(adapter), "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert hashes(BASE) == before
    assert not list(out.glob("adapter*"))
    # Whatever lies beside the base's weights is there too.
    assert set(before) <= set(hashes(out))

    base = AutoModelForCausalLM.from_pretrained(BASE)
    ids = torch.randint(0, base.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(3))
    plain = logits(base, ids)
    together = logits(PeftModel.from_pretrained(base, adapter), ids)
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert next(merged.parameters()).dtype == torch.float32
    torch.testing.assert_close(logits(merged, ids), together, rtol=0, atol=5e-5)
    assert (together - plain).abs().max() > 0.1
    text = "left up\nright 2048"
    tokens = AutoTokenizer.from_pretrained(BASE)(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(out)(text)["input_ids"] == tokens


def test_it_does_not_write_into_the_base(adapter: Path) -> None:
    before = hashes(BASE)
    with pytest.raises(HoneWorkerError, match="own folder"):
        merge(str(BASE), adapter, BASE / "merged")
    assert hashes(BASE) == before


def test_a_base_that_is_not_there(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(HoneWorkerError) as caught:
        merge("no/such-model", adapter, tmp_path / "out")
    assert caught.value.code == "bad_base"
