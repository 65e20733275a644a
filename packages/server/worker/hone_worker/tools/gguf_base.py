"""Makes a base of the hub's layout (safetensors, tokenizer, generation config) from a GGUF file.

python -m hone_worker.tools.gguf_base --gguf FILE --out FOLDER --origin TEXT

For models that come from a package index, without a hub. The weights are the file's, dequantised
and stored as bfloat16. Needs the `gguf` package, which only this program uses.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

# Progress bars of the libraries are not for a log.
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from gguf import GGUFReader
from tokenizers import decoders, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from hone_worker.process.errors import HoneWorkerError

#: The file only names the way in which text is split before it becomes tokens.
SPLITS = {"smollm": [pre_tokenizers.Digits(individual_digits=True)]}


def convert(gguf: Path, out: Path, origin: str) -> None:
    try:
        field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    except (OSError, ValueError) as error:
        message = f"Cannot convert {gguf}: it is no GGUF file ({error})."
        raise HoneWorkerError(message, code="bad_base", status=500) from error
    name = field.contents() if field is not None else None
    if name not in SPLITS:
        message = (
            f"Cannot convert {gguf}: its text is split as '{name}', and only {', '.join(SPLITS)} is known."
        )
        raise HoneWorkerError(message, code="bad_base", status=500)
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        config = AutoConfig.from_pretrained(**where)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        # Not AutoModel.from_pretrained, which reads the same but asks for the accelerate package.
        read = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        raise HoneWorkerError(f"Cannot convert {gguf}: {error}", code="bad_base", status=500) from error
    tensors = {name: value.to(torch.bfloat16).contiguous() for name, value in read["tensors"].items()}
    missing = set(model.state_dict()) - set(tensors)
    if missing - ({"lm_head.weight"} if config.tie_word_embeddings else set()):
        message = f"Cannot convert {gguf}: it has no {', '.join(sorted(missing))}."
        raise HoneWorkerError(message, code="bad_base", status=500)
    model = model.to_empty(device="cpu")
    # Not strict: tied weights are one tensor in the file. Tables of positions are neither loaded nor saved.
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    config.architectures = [type(model).__name__]
    # The name of the training run, under which no model can be loaded.
    config.__dict__.pop("_model_name_or_path", None)
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    model.generation_config = GenerationConfig(**ends, pad_token_id=config.pad_token_id)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    _mend(tokenizer, config, SPLITS[name])
    tokenizer.save_pretrained(out)
    (out / "README.md").write_text(f"{origin}\n", encoding="utf-8")


def _mend(tokenizer: Any, config: Any, split: list[Any]) -> None:
    """Corrects what the reader of GGUF tokenizers gets wrong."""
    # It takes the first special token for the one that ends a message: the model's own ids are right.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(config.bos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = config.max_position_embeddings
    # It splits as GPT-2 does, whatever the file says, and decodes as if it were SentencePiece's.
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="hone_worker.tools.gguf_base", description=__doc__)
    parser.add_argument("--gguf", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument(
        "--origin", required=True, help="where the weights come from, for the folder's README"
    )
    options = parser.parse_args(argv)
    try:
        convert(options.gguf, options.out, options.origin)
    except HoneWorkerError as error:
        print(error.message, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
