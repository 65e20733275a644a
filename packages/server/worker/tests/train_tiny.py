"""A tiny Qwen3 to train, the same one under PEFT, and the training written out by hand with PEFT and torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import train_reference as reference
from peft import PeftModel
from safetensors.torch import load_file
from train_reference import Completion, Forest
from transformers import Qwen3Config, Qwen3ForCausalLM

from hone_worker.base.adapter_files import fresh_adapter, write_adapter
from hone_worker.base.compute_paths import AUTO, ComputePaths
from hone_worker.base.lora import LoraSpec, LoraWeights
from hone_worker.base.model import Base, wrap_base
from hone_worker.packing.attention import register
from hone_worker.train.objectives import policy_gradient
from hone_worker.train.objectives.objective import LossInputs
from hone_worker.train.operation import train_steps
from hone_worker.train.step_data import parse_step_data

VOCABULARY = 40
SPEC = LoraSpec(r=4, alpha=8.0)


def tiny_model(dtype=torch.float32, vocabulary=VOCABULARY, hidden=32, layers=2) -> Qwen3ForCausalLM:
    """The same weights at every call."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = Qwen3ForCausalLM(config)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                # Larger than a fresh model's: its logprobs then differ from token to token.
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.25)
    return model.to(dtype).eval()


def tiny_base(paths: ComputePaths = AUTO, **options) -> Base:
    model = tiny_model(**options)
    model.set_attn_implementation(register())
    return wrap_base(model, None, "tiny", 2048, paths)


def trained_adapter(base: Base, seed: int = 3, size: float = 0.05) -> LoraWeights:
    """An adapter as after training: B is not zero."""
    fresh = fresh_adapter(base.model, SPEC, seed)
    random = torch.Generator().manual_seed(seed)
    return LoraWeights(
        SPEC, {p: (a, torch.randn(b.shape, generator=random) * size) for p, (a, b) in fresh.tensors.items()}
    )


def save_policy(folder: Path, base: Base, weights: LoraWeights) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_adapter(folder, weights, "tiny")
    return folder


def under_peft(folder: Path, dtype=torch.float32) -> PeftModel:
    model = PeftModel.from_pretrained(
        tiny_model(dtype), str(folder), is_trainable=True, autocast_adapter_dtype=False
    )
    return model.to(dtype).eval()


def peft_parameters(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """By the trainer's names."""
    return {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def peft_logprobs(model: PeftModel, sequence: list[int], temperatures: list[float]) -> torch.Tensor:
    """Logprob of each token but the first of one sequence, alone, with all its logits."""
    logits = model(torch.tensor([sequence]), use_cache=False).logits[0, :-1]
    scaled = logits / torch.tensor(temperatures, dtype=logits.dtype)[1:, None]
    return torch.log_softmax(scaled, -1).gather(1, torch.tensor(sequence)[1:, None])[:, 0]


@dataclass
class HandStep:
    loss: float
    clipped_low: int
    clipped_high: int
    capped: int


class ByHand:
    """The whole training with PEFT's model: a sequence at a time, a token at a time."""

    def __init__(self, folder: Path, forest: Forest, options: dict, dtype=torch.float32) -> None:
        self.model = under_peft(folder, dtype)
        self.forest = forest
        self.options = {
            **{"epsilon_low": 0.2, "epsilon_high": 0.2, "importance_cap": 2.0},
            **options.get("loss", {}),
        }
        self.advantages = reference.advantages(
            forest.rewards, forest.groups, self.options.get("scale_rewards", "none")
        )
        self.trained = set(reference.trained_tokens(forest))
        owners = {forest.completions[c].rollout for c, _ in self.trained}
        self.options.setdefault("normalizer_tokens", len(self.trained) / len(owners))
        self.start: dict[tuple[int, int], float] = {}

    def tokens(self, leaf: int):
        """(completion, index, logprob) of every token of a leaf's sequence but the first."""
        where = [
            (c, k) for c in self.forest.path(leaf) for k in range(len(self.forest.completions[c].suffix))
        ]
        temperatures = [self.forest.completions[c].temperature or 1.0 for c, _ in where]
        logprobs = peft_logprobs(self.model, self.forest.sequence(leaf), temperatures)
        return [(c, k, logprobs[i]) for i, (c, k) in enumerate(where[1:])]

    def remember_start(self) -> None:
        with torch.no_grad():
            for leaf in self.forest.leaves():
                for c, k, logprob in self.tokens(leaf):
                    self.start[c, k] = logprob.item()

    def backward(self, leaves: list[int], rollouts: float, done: set[tuple[int, int]]) -> HandStep:
        o = self.options
        step = HandStep(0.0, 0, 0, 0)
        for leaf in leaves:
            loss = torch.zeros((), dtype=next(self.model.parameters()).dtype)
            for c, k, logprob in self.tokens(leaf):
                if (c, k) not in self.trained or (c, k) in done:
                    continue
                done.add((c, k))
                completion = self.forest.completions[c]
                a = self.advantages[completion.rollout]
                start = (
                    torch.tensor(self.start[c, k], dtype=logprob.dtype) if self.start else logprob.detach()
                )
                sampler = completion.logprobs[k]
                weight = min(torch.exp(start - sampler).item(), o["importance_cap"])
                step.capped += weight == o["importance_cap"]
                rho = torch.exp(logprob - start)
                clipped = torch.clamp(rho, 1 - o["epsilon_low"], 1 + o["epsilon_high"])
                step.clipped_low += rho.item() < 1 - o["epsilon_low"] and a < 0
                step.clipped_high += rho.item() > 1 + o["epsilon_high"] and a > 0
                loss = loss - weight * torch.min(rho * a, clipped * a)
            loss = loss / (rollouts * o["normalizer_tokens"])
            if loss.requires_grad:
                loss.backward()
            step.loss += loss.item()
        return step

    def gradients(self) -> dict[str, torch.Tensor]:
        return {name: p.grad.clone() for name, p in peft_parameters(self.model).items()}


def sample_logprobs(forest: Forest, folder: Path, noise: float, seed: int = 11) -> None:
    """Sampler logprobs: those of the policy in `folder`, each off by up to `noise` (a stale engine)."""
    hand = ByHand(folder, forest, {})
    hand.remember_start()
    random = torch.Generator().manual_seed(seed)
    for c, completion in enumerate(forest.completions):
        completion.logprobs = [
            min(0.0, hand.start.get((c, k), 0.0) + noise * (2 * torch.rand(1, generator=random).item() - 1))
            if sampled
            else 0.0
            for k, sampled in enumerate(completion.sampled)
        ]


def grown_forest(seed: int = 1) -> Forest:
    """Three groups: mixed rewards with branches, equal rewards, and one with a masked rollout."""
    random = torch.Generator().manual_seed(seed)

    def suffix(prompt: int, sampled: int) -> dict:
        ids = torch.randint(VOCABULARY, (prompt + sampled,), generator=random).tolist()
        return {"suffix": ids, "sampled": [0] * prompt + [1] * sampled}

    f = Forest()
    for reward, temperature in ((1.0, 1.0), (0.3, 0.7), (-0.6, 1.3)):
        rollout = f.rollout(reward, 0)
        first = f.add(Completion(**suffix(6, 5), rollout=rollout, temperature=temperature))
        second = f.add(Completion(**suffix(3, 4), rollout=rollout, parent=first, temperature=temperature))
        f.add(Completion(**suffix(2, 6), rollout=rollout, parent=second, temperature=1.0))
        f.add(Completion(**suffix(4, 3), rollout=rollout, parent=first, temperature=0.0))
    for _ in range(2):
        f.add(Completion(**suffix(4, 5), rollout=f.rollout(0.1, 1)))
    for reward, trainable in ((1.0, 1), (0.0, 1), (3.0, 0)):
        f.add(Completion(**suffix(5, 6), rollout=f.rollout(reward, 2, trainable)))
    # Two parallel conversations, one of them context only.
    f.add(Completion(**suffix(3, 3), rollout=0, trainable=0))
    f.add(Completion(**suffix(3, 4), rollout=0))
    return f


def train(base: Base, forest: Forest, options: dict, aborted=lambda: False) -> dict:
    """Runs the trainer to its result event."""
    data, config = parse_step_data(reference.body(forest, options))
    return list(train_steps(base, data, config, aborted))[-1]


def last_gradient(folder: Path, beta: float) -> dict[str, torch.Tensor]:
    """The gradient of a first (or, with beta 0, of any) optimizer step, read off its moments."""
    tensors = load_file(folder / "optimizer.safetensors")
    return {
        name.removesuffix(".exp_avg"): tensor / (1 - beta)
        for name, tensor in tensors.items()
        if name.endswith(".exp_avg")
    }


def loss_inputs(now, old, sampler, advantages, rollout, rollouts, **others):
    """Tokens given to a loss, which are all of their optimizer step, and of the operation."""
    counted = others.get("weights")
    counted = torch.ones_like(now.detach()) if counted is None else counted.to(now.dtype)
    total = float(counted.sum())
    given = {
        "group": torch.zeros_like(rollout),
        "completion": rollout,
        "token": torch.arange(len(now)),
        "entropies": torch.zeros_like(now.detach()),
        "tokens": total,
        "mean_tokens": total,
        "entropy_tokens": total,
        "rollout_tokens": counted.new_zeros(int(rollout.max()) + 1).index_add_(0, rollout, counted),
    }
    return LossInputs(now, old, sampler, advantages, rollout, rollouts=rollouts, **{**given, **others})


def policy_loss(now, old, sampler, advantage, rollouts, options):
    """The default objective on tokens given to it."""
    indices = torch.arange(len(now))
    outputs = policy_gradient.loss(loss_inputs(now, old, sampler, advantage, indices, rollouts), options)
    clipped = {side: outputs.metrics[f"token_{side}"] for side in ("low", "high")}
    return SimpleNamespace(total=outputs.total, **clipped)


def relative_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The worst over parameters, each against its own size."""
    assert ours.keys() == theirs.keys()
    return max(
        ((ours[n].double() - theirs[n].double()).norm() / theirs[n].double().norm()).item() for n in theirs
    )
