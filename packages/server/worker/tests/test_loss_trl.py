"""The policy loss against TRL's own code, where the two formulas are the same one (its `dr_grpo`)."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from train_tiny import policy_loss
from trl import GRPOTrainer

from hone_worker.train.objectives.objective import importance
from hone_worker.train.objectives.policy_gradient import PolicyGradient as LossConfig
from hone_worker.train.sums import PerRollout


def trl_loss(now, start, sampler, mask, advantage, options):
    """GRPOTrainer._compute_loss on logprobs given to it, its `self` reduced to what the formula reads."""
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_args, **_kwargs: (now, torch.zeros_like(now), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.0,
        loss_type="dr_grpo",
        epsilon_low=options.epsilon_low,
        epsilon_high=options.epsilon_high,
        args=SimpleNamespace(delta=None),
        use_vllm=True,
        vllm_importance_sampling_correction=True,
        max_completion_length=options.normalizer_tokens,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        model=SimpleNamespace(training=True),
        _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(reduce=lambda x, reduction: x, gather=lambda x: x),
    )
    rows, width = now.shape
    inputs = {
        "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": torch.zeros(rows, width, dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantage,
        "old_per_token_logps": start,
        "importance_sampling_ratio": torch.clamp(torch.exp(start - sampler), max=options.importance_cap),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss, trainer._metrics["train"]


def test_policy_loss_is_trls_dr_grpo_with_truncated_importance_weights():
    options = LossConfig(epsilon_low=0.2, epsilon_high=0.28, importance_cap=2.0, normalizer_tokens=64)
    random = torch.Generator().manual_seed(3)
    rows, width = 6, 30

    def uniform(scale):
        return (torch.rand(rows, width, generator=random, dtype=torch.float64) * 2 - 1) * scale

    start = -1.5 + uniform(1.0)
    sampler = start + uniform(1.2)
    now = (start + uniform(0.6)).requires_grad_()
    advantage = torch.randn(rows, generator=random, dtype=torch.float64)
    mask = (torch.rand(rows, width, generator=random) < 0.7).double()
    theirs, metrics = trl_loss(now, start, sampler, mask, advantage, options)
    theirs.backward()
    gradient, now.grad = now.grad, None

    kept = mask.bool()
    spread = advantage[:, None].expand(rows, width)
    ours = policy_loss(now[kept], start[kept], sampler[kept], spread[kept], rows, options)
    ours.total.backward()
    assert ours.total.item() == pytest.approx(theirs.item(), rel=1e-12)
    torch.testing.assert_close(now.grad, gradient, rtol=1e-10, atol=1e-14)
    assert ours.low.any() and ours.high.any() and (importance(start, sampler)[kept] > 2).any()
    assert metrics["clip_ratio/low_mean"] == pytest.approx([ours.low.double().mean().item()])
    assert metrics["clip_ratio/high_mean"] == pytest.approx([ours.high.double().mean().item()])
    low, high = PerRollout(rows), PerRollout(rows)
    rollout = kept.nonzero()[:, 0]
    low.add(ours.low, rollout)
    high.add(ours.high, rollout)
    assert metrics["clip_ratio/low_min"] == pytest.approx([low.means.min])
    assert metrics["clip_ratio/high_max"] == pytest.approx([high.means.max])
    assert metrics["clip_ratio/low_mean"] == pytest.approx([low.mean])
    assert metrics["clip_ratio/region_mean"] == pytest.approx([low.mean + high.mean])
