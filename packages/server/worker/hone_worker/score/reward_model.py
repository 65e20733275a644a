"""Sequence classifiers that score conversations: loaded once beside the base, frozen, run on the compute thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from hone_worker.process.errors import HoneWorkerError
from hone_worker.render.control_tokens import MarkedTokenizer, plain_text, unmarked
from hone_worker.score.beside import beside

log = logging.getLogger("hone_worker")

#: Tokens that are scored at once, padding included. Requests are decoded in between.
FORWARD_TOKENS = 4096


@dataclass(frozen=True)
class Encoded:
    ids: list[int]
    #: How many tokens there were, including those that were left out.
    tokens: int

    @property
    def truncated(self) -> bool:
        return self.tokens > len(self.ids)


@dataclass(frozen=True)
class RewardModel:
    name: str
    model: nn.Module
    tokenizer: Any
    pad: int
    max_tokens: int
    labels: tuple[str, ...]
    #: Several labels may hold at once: each has a probability of its own.
    independent: bool
    #: Keeps what a message spells as text, even if it looks like a control token.
    seen: MarkedTokenizer
    #: A tokenizer keeps its truncation setting, and requests encode in threads of their own.
    encoding: threading.Lock = field(default_factory=threading.Lock)

    def text_of(self, messages: list[dict[str, Any]]) -> str:
        """Renders by the model's own chat template, because it was trained on conversations that look like that."""
        if not self.tokenizer.chat_template:
            message = f"'{self.name}' has no chat template. Send texts instead of messages."
            raise HoneWorkerError(message, code="no_chat_template")
        plain = self.seen.plain
        if plain is not None:
            # An answer that spells the end of its turn must not end it.
            messages = [
                {key: one if key == "role" else plain.mark(one) for key, one in message.items()}
                for message in messages
            ]
        try:
            text = str(self.tokenizer.apply_chat_template(messages, tokenize=False))
            bare = [{k: one for k, one in m.items() if k != "tool_calls"} for m in messages]
            shows = bare == messages or text != str(self.tokenizer.apply_chat_template(bare, tokenize=False))
        except Exception as error:
            # A template's own refusal ("roles must alternate") is the caller's to mend.
            message = f"The template of '{self.name}' cannot render these messages: {unmarked(str(error))}"
            raise HoneWorkerError(message, code="invalid_messages") from error
        if not shows:
            message = (
                f"The template of '{self.name}' leaves tool calls out. Write them as content, or send texts."
            )
            raise HoneWorkerError(message, code="invalid_messages")
        return text

    def encode(self, text: str, *, templated: bool) -> Encoded:
        """A template writes the special tokens itself; to a plain text the tokenizer adds its own.

        What is too long keeps its end, where the answer is, and the special tokens around it.
        """
        with self.encoding:
            return self._encode(text, templated=templated)

    def _encode(self, text: str, *, templated: bool) -> Encoded:
        tokenizer = self.seen if templated else self.tokenizer
        whole = tokenizer(text, add_special_tokens=not templated)["input_ids"]
        if not whole:
            raise HoneWorkerError("There is nothing to score: the text is empty.", code="empty_text")
        if len(whole) <= self.max_tokens:
            return Encoded(whole, len(whole))
        if templated:
            return Encoded(whole[-self.max_tokens :], len(whole))
        kept = self.tokenizer(
            text,
            add_special_tokens=True,
            truncation=True,
            max_length=self.max_tokens,
        )["input_ids"]
        return Encoded(kept, len(whole))

    def score(self, sequences: Sequence[list[int]], label: int) -> list[float]:
        """With one label its logit, else the label's probability."""
        device = next(self.model.parameters()).device
        return [value for rows in beside(sequences, device) for value in self._forward(rows, label, device)]

    def _forward(self, sequences: Sequence[list[int]], label: int, device: torch.device) -> list[float]:
        width = max(len(ids) for ids in sequences)
        ids = torch.full((len(sequences), width), self.pad)
        mask = torch.zeros(len(sequences), width, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        with torch.inference_mode():
            logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float()
        if len(self.labels) == 1:
            values = logits[:, 0]
        elif self.independent:
            values = logits[:, label].sigmoid()
        else:
            values = logits.softmax(-1)[:, label]
        return [float(value) for value in values.tolist()]


def forwards(lengths: Sequence[int], most: int = FORWARD_TOKENS) -> Iterator[list[int]]:
    """Indices of sequences that are scored at once: of similar length, within the token limit."""
    together: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if together and lengths[place] * (len(together) + 1) > most:
            yield together
            together = []
        together.append(place)
    if together:
        yield together


def load_reward_model(name: str, source: str, *, device: str, dtype: torch.dtype) -> RewardModel:
    """A folder or hub id, from safetensors only, never with code of the model's own, and with a head that was trained."""
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, truncation_side="left")
    except (OSError, ValueError) as error:
        raise bad_model(name, f"'{source}' cannot be loaded: {error}") from error
    missing = sorted(loaded["missing_keys"]) + sorted(str(key) for key in loaded["mismatched_keys"])
    if missing:
        # transformers would make up these weights, and so every score.
        raise bad_model(name, f"'{source}' is no sequence classifier: it lacks {', '.join(missing[:3])}")
    # As TRL does. By this token the head of a decoder finds where the text ends.
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if pad is None:
        raise bad_model(name, f"'{source}' names neither a padding nor an end token")
    model.config.get_text_config().pad_token_id = pad
    model.eval()
    model.requires_grad_(False)
    model.to(torch.device(device))
    labels = tuple(str(model.config.id2label[i]) for i in range(model.config.num_labels))
    independent = model.config.problem_type == "multi_label_classification"
    return RewardModel(
        name,
        model,
        tokenizer,
        pad,
        _longest(model, tokenizer),
        labels,
        independent,
        MarkedTokenizer(tokenizer, plain_text(tokenizer)),
    )


def _longest(model: Any, tokenizer: Any) -> int:
    """The smaller of what the position table allows and what the tokenizer says."""
    text = model.config.get_text_config()
    limits = [int(tokenizer.model_max_length)]
    positions = getattr(text, "max_position_embeddings", None)
    if positions:
        # RoBERTa and its kind count positions from behind the padding's.
        table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
        first = getattr(table, "padding_idx", None)
        limits.append(int(positions) - (0 if first is None else first + 1))
    limit = min(limits)
    return limit if limit < 10**9 else 4096


def bad_model(name: str, problem: str) -> HoneWorkerError:
    message = f"The reward model '{name}': {problem}. Name a folder or hub id of a sequence classifier."
    return HoneWorkerError(message, code="bad_reward_model", status=500)
