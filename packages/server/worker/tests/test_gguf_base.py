"""A GGUF file of a tiny model becomes a base that computes what the model did, and stops where it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hone_worker.base.model import load_base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.base import load
from hone_worker.tools.gguf_base import convert

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def letters() -> list[str]:
    """The alphabet of byte-level BPE: a printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    for number, byte in enumerate(byte for byte in range(256) if byte not in printable):
        table[byte] = chr(256 + number)
    return [table[byte] for byte in range(256)]


def tiny() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + 256 + 2,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rope_parameters={"rope_theta": 10_000.0, "rope_type": "default"},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Values that bfloat16 holds: the conversion must not change a bit of them.
        for parameter in model.parameters():
            parameter.copy_((parameter * 10 if parameter.dim() == 2 else parameter).bfloat16().float())
    return model.eval()


def interleaved(weight: torch.Tensor, heads: int) -> np.ndarray:
    """GGUF keeps the two halves of a rotary pair side by side."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)
    return pairs.reshape(rows, columns).numpy()


def write_gguf(path: Path, model: LlamaForCausalLM, split: str = "smollm") -> None:
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    # Merges that would join digits, which are to stay apart.
    writer.add_token_list([*SPECIAL, *letters(), "12", "34"])
    writer.add_token_types([3] * len(SPECIAL) + [1] * 258)
    writer.add_token_merges(["1 2", "3 4"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        projection = name.split(".")[-2]
        values = interleaved(tensor, heads[projection]) if projection in heads else tensor.numpy()
        writer.add_tensor(names.get_name(name.removesuffix(".weight")) + ".weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gguf")
    write_gguf(made / "tiny.gguf", tiny())
    convert(made / "tiny.gguf", made / "base", "From a test.")
    return made / "base"


def test_it_computes_what_the_model_computed(folder: Path) -> None:
    base = load_base(str(folder), dtype="float32")
    ids = torch.arange(3, 60).unsqueeze(0)
    with torch.no_grad():
        wanted = tiny()(input_ids=ids).logits
        got = base.model(input_ids=ids).logits
    assert torch.allclose(got, wanted, atol=1e-5)
    assert base.max_model_len == 128
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert (folder / "README.md").read_text() == "From a test.\n"


def test_only_the_end_of_a_message_stops(folder: Path) -> None:
    rendered = load(str(folder))
    assert rendered.stop_token_ids == [SPECIAL.index("<|im_end|>")]
    prompt = rendered.renderer.render_ids([{"role": "user", "content": "Hé 12"}], add_generation_prompt=True)
    text = rendered.tokenizer.decode(prompt)
    assert text == "<|im_start|>user\nHé 12<|im_end|>\n<|im_start|>assistant\n"
    digits = rendered.tokenizer.convert_ids_to_tokens(prompt)
    assert "12" not in digits and "1" in digits


def test_a_text_split_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", tiny(), split="llama-bpe")
    with pytest.raises(HoneWorkerError, match="split as 'llama-bpe'"):
        convert(tmp_path / "other.gguf", tmp_path / "base", "")
    assert not (tmp_path / "base").exists()


def test_the_program_says_why_it_failed(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF?")
    arguments = ["--gguf", str(tmp_path / "no.gguf"), "--out", str(tmp_path / "base"), "--origin", ""]
    ran = subprocess.run(
        [sys.executable, "-m", "hone_worker.tools.gguf_base", *arguments], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("Cannot convert")
