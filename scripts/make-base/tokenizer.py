"""The tokenizer: one token a cell, a move and a common word; every other text falls back to bytes."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from game import MOVES

# The names that Qwen3's renderer asks for come first; the lean template needs only the last of each group.
CONTROL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|tools|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
]
MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
VALUES = [".", *(str(2**k) for k in range(1, 12))]
SAY = ["yes", "no", "maybe", "fine", "sure", "never", "always", "often"]

# One pre-token each; the vocabulary holds the ones that matter whole, the rest is bytes.
SPLIT = r"[ \n]?[a-z]\d+=(?:\d+|\.)|\nlegal:| ?\p{L}+| ?\d+x\d+| ?\d+| ?[^\s\p{L}\p{N}]|\s"

COMMON = [
    "a",
    "about",
    "after",
    "all",
    "an",
    "and",
    "any",
    "are",
    "as",
    "at",
    "be",
    "board",
    "but",
    "by",
    "call",
    "can",
    "cell",
    "column",
    "could",
    "do",
    "each",
    "else",
    "empty",
    "end",
    "false",
    "first",
    "for",
    "from",
    "function",
    "game",
    "get",
    "give",
    "has",
    "have",
    "here",
    "how",
    "if",
    "in",
    "is",
    "it",
    "its",
    "last",
    "left",
    "legal",
    "like",
    "line",
    "list",
    "make",
    "may",
    "more",
    "move",
    "name",
    "new",
    "next",
    "no",
    "not",
    "now",
    "null",
    "number",
    "of",
    "on",
    "one",
    "only",
    "or",
    "other",
    "out",
    "play",
    "please",
    "question",
    "row",
    "say",
    "see",
    "should",
    "show",
    "some",
    "sum",
    "text",
    "than",
    "that",
    "the",
    "them",
    "then",
    "there",
    "this",
    "time",
    "to",
    "tool",
    "true",
    "two",
    "type",
    "use",
    "value",
    "was",
    "way",
    "we",
    "what",
    "when",
    "where",
    "which",
    "who",
    "why",
    "will",
    "with",
    "word",
    "would",
    "write",
    "you",
    "your",
    "zero",
    "answer",
    "arguments",
    "description",
    "error",
    "object",
    "parameters",
    "properties",
    "required",
    "result",
    "string",
    "user",
    "assistant",
    "system",
    "ok",
    "Answer",
    "Not",
    "Reach",
    "Row",
    "Say",
    "The",
    "You",
    "top",
    "dot",
    "right",
    "up",
    "down",
]


def pieces() -> list[str]:
    cells = [f"{row}{column}" for row in "abcd" for column in "1234"]
    out = [f"{space}{cell}={value}" for cell in cells for value in VALUES for space in before(cell)]
    out += ["\nlegal:", " 2048", " 3x3", " 4x4", *(f" {2**k}" for k in range(1, 11))]
    for word in dict.fromkeys([*MOVES, *SAY, *COMMON]):
        out += [word, f" {word}"]
    return list(dict.fromkeys(out))


def before(cell: str) -> list[str]:
    """What stands before a cell: a newline begins a row; the first row may also open the message."""
    if cell == "a1":
        return ["", "\n"]
    return ["\n"] if cell.endswith("1") else [" "]


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def build(words: list[str], split: str = SPLIT) -> Tokenizer:
    alphabet = byte_alphabet()
    vocab = {character: i for i, character in enumerate(alphabet[b] for b in range(256))}
    for piece in words:
        spelled = "".join(alphabet[b] for b in piece.encode())
        vocab.setdefault(spelled, len(vocab))
    # ignore_merges: a pre-token that the vocabulary holds is taken whole, so no merge rules are needed.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in CONTROL])
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in MARKS])
    return tokenizer


def save(folder: Path, built: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    tokenizer.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text().rstrip("\n")
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    # The name that transformers 4 and 5 both know.
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer
