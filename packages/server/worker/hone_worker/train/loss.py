"""The policy-gradient loss, and logprobs computed where it needs them and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hone_worker.train.batch import LossConfig

# Rows of logits alive at once: at a vocabulary of 152k, 256 rows are 156 MB in float32.
_CHUNK = 256


@dataclass(frozen=True)
class PolicyLoss:
    total: torch.Tensor  # scalar: sum over tokens / (rollouts * normalizer_tokens)
    ratio: torch.Tensor  # pi / pi_o, detached
    low: torch.Tensor  # bool: clipped from below (A < 0)
    high: torch.Tensor  # bool: clipped from above (A > 0)


def policy_loss(
    logprob: torch.Tensor,
    start: torch.Tensor,
    sampler: torch.Tensor,
    advantage: torch.Tensor,
    rollouts: float,
    config: LossConfig,
) -> PolicyLoss:
    """L = -sum w * min(rho A, clip(rho) A) / (R * C) over the tokens given.

    `start` is pi_o, the trainer's logprob before the first optimizer step; `sampler` is pi_s, the engine's.
    w corrects for what lies between those two (staleness, rounding) and is a constant; rho is what moves.
    """
    weight = importance(start, sampler).clamp(max=config.importance_cap)
    ratio = torch.exp(logprob - start.detach())
    clipped = ratio.clamp(1 - config.epsilon_low, 1 + config.epsilon_high)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    total = -(weight * surrogate).sum() / (rollouts * config.normalizer_tokens)
    ratio = ratio.detach()
    low = (ratio < 1 - config.epsilon_low) & (advantage < 0)
    high = (ratio > 1 + config.epsilon_high) & (advantage > 0)
    return PolicyLoss(total, ratio, low, high)


def importance(start: torch.Tensor, sampler: torch.Tensor) -> torch.Tensor:
    """pi_o / pi_s, uncapped and without a gradient."""
    return torch.exp(start.detach() - sampler.detach())


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(hidden @ W^T / T)[target] and its entropy, a chunk of rows at a time.

    The head is frozen, so the gradient towards `hidden` can be formed while a chunk's logits are at hand:
    nothing the size of the vocabulary outlives its chunk, and nothing is computed twice.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, target, temperature, softcap, scale, with_grad):
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logprob = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        entropy = torch.empty_like(logprob)
        slope = torch.empty_like(hidden) if with_grad else None
        for at in range(0, len(hidden), _CHUNK):
            rows = slice(at, at + _CHUNK)
            logits = torch.nn.functional.linear(hidden[rows], weight, bias).to(exact) * scale
            factor = scale / temperature[rows, None].to(exact)
            if softcap is not None:
                bent = torch.tanh(logits / softcap)
                logits = bent * softcap
                factor = factor * (1 - bent * bent)
            logs = torch.log_softmax(logits / temperature[rows, None].to(exact), dim=-1)
            logprob[rows] = logs.gather(1, target[rows, None])[:, 0]
            probabilities = logs.exp()
            entropy[rows] = -(probabilities * logs).sum(-1)
            if slope is not None:
                towards = probabilities.neg_()
                towards.scatter_add_(1, target[rows, None], torch.ones_like(towards[:, :1]))
                slope[rows] = (towards * factor).to(weight.dtype) @ weight
        if slope is not None:
            ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(entropy)
        return logprob, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_logprob, _grad_entropy):
        (slope,) = ctx.saved_tensors
        grad = slope * grad_logprob[:, None].to(slope.dtype)
        return grad, None, None, None, None, None, None, None


def token_logprobs(
    hidden: torch.Tensor,
    head: torch.nn.Linear,
    target: torch.Tensor,
    temperature: torch.Tensor,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprob of `target` and entropy at each row of `hidden` [N, H], in float32 at least.

    `temperature` divides the logits; 0 stands for greedy decoding, whose logprobs are reported at 1.
    """
    temperature = torch.where(temperature == 0, torch.ones_like(temperature), temperature)
    with_grad = torch.is_grad_enabled() and hidden.requires_grad
    bias = None if head.bias is None else head.bias.detach()
    return _TokenLogprobs.apply(
        hidden, head.weight.detach(), bias, target, temperature, softcap, scale, with_grad
    )
