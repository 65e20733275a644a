"""TRL's own code on tensors that a test gives it: its `_compute_loss`, and the parts of its trainers that have no name.

Those parts are statements in the middle of `_generate_and_score_completions`. They are cut out of the installed
package's source and run as they stand.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from types import CodeType, SimpleNamespace
from typing import Any

import torch
from trl import GRPOTrainer, RLOOTrainer


@dataclass
class Case:
    """One generation batch, [rows, width] each: rows are rollouts."""

    now: torch.Tensor
    old: torch.Tensor
    sampler: torch.Tensor
    reference: torch.Tensor
    entropies: torch.Tensor
    mask: torch.Tensor  # tool tokens, padding and truncated rows are 0
    rewards: torch.Tensor  # NaN for none
    members: int  # rollouts of a group
    other_tokens: int = 0  # of the other optimizer steps of the same generation batch
    steps: int = 1  # optimizer steps that share it


@cache
def _statements(trainer: type) -> list[ast.stmt]:
    source = textwrap.dedent(inspect.getsource(trainer._generate_and_score_completions))
    return ast.parse(source).body[0].body


def _compiled(statements: list[ast.stmt]) -> CodeType:
    return compile(ast.fix_missing_locations(ast.Module(body=statements, type_ignores=[])), "trl", "exec")


def _run(code: CodeType, trainer: type, names: dict[str, Any]) -> dict[str, Any]:
    scope = {**vars(inspect.getmodule(trainer)), **names, "gather": lambda x: x}
    exec(code, scope)
    return scope


@cache
def _ratio_code() -> CodeType:
    (block,) = [
        node
        for statement in _statements(GRPOTrainer)
        for node in ast.walk(statement)
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == "self.use_vllm and self.vllm_importance_sampling_correction"
        and "per_token_logps_diff" in ast.unparse(node.body)
    ]
    return _compiled(block.body)


def correction(case: Case, options) -> torch.Tensor:
    mode = options.sampler_correction
    trainer = SimpleNamespace(
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=options.sampler_correction_min,
        vllm_importance_sampling_clip_max=3.0
        if options.sampler_correction_max is None
        else options.sampler_correction_max,
    )
    names = {
        "self": trainer,
        "completion_mask": case.mask,
        "tool_mask": None,
        "old_per_token_logps": case.old,
        "sampling_per_token_logps": case.sampler,
    }
    return _run(_ratio_code(), GRPOTrainer, names)["vllm_importance_sampling_ratio"]


@cache
def _advantage_code(trainer: type) -> CodeType:
    texts = [ast.unparse(statement) for statement in _statements(trainer)]
    first = next(i for i, text in enumerate(texts) if text.startswith("unscorable_mask = "))
    last = max(
        i for i, text in enumerate(texts) if text.startswith("advantages = torch.nan_to_num(advantages")
    )
    return _compiled(_statements(trainer)[first : last + 1])


def advantages(case: Case, options, *, rloo: bool = False) -> torch.Tensor:
    trainer = SimpleNamespace(
        multi_objective_aggregation="sum_then_normalize",
        reward_weights=torch.ones(1, dtype=torch.float64),
        scale_rewards=getattr(options, "scale_rewards", "none"),
        reward_clip_range=None,
        beta=options.beta if rloo else 0.0,
        normalize_advantages=getattr(options, "normalize_advantages", False),
    )
    names = {
        "self": trainer,
        "rewards_per_func": case.rewards[:, None].clone(),
        "num_generations": case.members,
        "device": torch.device("cpu"),
        "old_per_token_logps": case.old,
        "ref_per_token_logps": case.reference,
        "completion_mask": case.mask,
    }
    cls = RLOOTrainer if rloo else GRPOTrainer
    return _run(_advantage_code(cls), cls, names)["advantages"]


def _trainer(case: Case, options) -> SimpleNamespace:
    kind = options.type
    coefficient = options.entropy_coef
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_args, **_kwargs: (case.now, case.entropies, None),
        get_high_entropy_mask=lambda *args: GRPOTrainer.get_high_entropy_mask(trainer_self, *args),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        get_gamma_weights=GRPOTrainer.get_gamma_weights,
        aux_loss_enabled=False,
        top_entropy_quantile=options.top_entropy_quantile,
        off_policy_mask_threshold=options.off_policy_mask_threshold,
        importance_sampling_level="sequence"
        if kind == "gspo"
        else getattr(options, "importance_level", "token"),
        beta=options.beta,
        loss_type="grpo" if kind == "gspo" else kind,
        epsilon_low=getattr(options, "epsilon_low", None),
        epsilon_high=getattr(options, "epsilon_high", None),
        args=SimpleNamespace(
            delta=getattr(options, "delta", None),
            use_bias_correction_kl=options.corrects_kl,
            sapo_temperature_pos=getattr(options, "temperature_positive", None),
            sapo_temperature_neg=getattr(options, "temperature_negative", None),
            vespo_k_pos=getattr(options, "k_positive", None),
            vespo_lambda_pos=getattr(options, "lambda_positive", None),
            vespo_k_neg=getattr(options, "k_negative", None),
            vespo_lambda_neg=getattr(options, "lambda_negative", None),
            steps_per_generation=case.steps,
        ),
        use_vllm=options.sampler_correction != "none",
        vllm_importance_sampling_correction=True,
        max_completion_length=getattr(options, "normalizer_tokens", math.nan),
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=coefficient > 0,
        use_adaptive_entropy=False,
        entropy_coef=coefficient,
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        accelerator=trainer_self.accelerator,
    )


trainer_self = SimpleNamespace(
    accelerator=SimpleNamespace(
        reduce=lambda x, reduction: x,
        gather=lambda x: x,
        pad_across_processes=lambda x, **_kwargs: x,
        num_processes=1,
        sync_gradients=True,
    )
)


def loss(case: Case, options, advantages: torch.Tensor) -> tuple[torch.Tensor, dict[str, list[float]]]:
    trainer = _trainer(case, options)
    rows, width = case.now.shape
    inputs = {
        "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": torch.zeros(rows, width, dtype=torch.long),
        "completion_mask": case.mask,
        "advantages": advantages,
        "old_per_token_logps": case.old,
        "sampling_per_token_logps": case.sampler,
        "ref_per_token_logps": case.reference,
        "num_items_in_batch": case.mask.sum() + case.other_tokens,
        "old_logps": (case.old * case.mask).sum(1),
    }
    if options.sampler_correction != "none":
        inputs["importance_sampling_ratio"] = correction(case, options)
    cls = RLOOTrainer if options.type == "rloo" else GRPOTrainer
    return cls._compute_loss(trainer, None, inputs), trainer._metrics["train"]
