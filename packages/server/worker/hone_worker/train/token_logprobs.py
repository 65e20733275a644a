"""Logprobs and entropies of tokens, computed where a loss needs them and nowhere else."""

from __future__ import annotations

import torch

from hone_worker.base.products import in_steps, product

# Rows of logits alive at once: at a vocabulary of 152k, 256 rows are 156 MB in float32.
_CHUNK = 256


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(hidden @ W^T / T)[target] and its entropy, a chunk of rows at a time.

    The head is frozen, so the gradient towards `hidden` can be formed while a chunk's logits are at hand:
    nothing the size of the vocabulary outlives its chunk, and nothing is computed twice.
    """

    @staticmethod
    def forward(
        ctx, hidden, weight, bias, target, temperature, softcap, scale, with_grad, bends, chunk, wide
    ):
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logprob = torch.empty(len(hidden), dtype=exact, device=hidden.device)
        entropy = torch.empty_like(logprob)
        slope = torch.empty_like(hidden) if with_grad else None
        bend = torch.empty_like(hidden) if with_grad and bends else None
        # On a GPU the question would wait for the answer.
        divides = hidden.device.type != "cpu" or not torch.equal(temperature, torch.ones_like(temperature))
        for rows in in_steps(len(hidden), chunk):
            if bias is None:
                logits = product(hidden[rows], weight, wide).to(exact)
            else:
                logits = torch.nn.functional.linear(hidden[rows], weight, bias).to(exact)
            heat = temperature[rows, None].to(exact)
            factor = scale / heat
            if scale != 1:
                logits *= scale
            if softcap is not None:
                bent = logits.div_(softcap).tanh_()
                factor = factor * (1 - bent * bent)
                logits = bent.mul_(softcap)
            if divides:
                logits /= heat
            logits -= logits.amax(-1, keepdim=True)
            chosen = logits.gather(1, target[rows, None])
            powers = logits.exp()
            total = powers.sum(-1, keepdim=True)
            log_total = total.log()
            logprob[rows] = (chosen - log_total)[:, 0]
            if bend is None:
                weighed = logits.mul_(powers).sum(-1, keepdim=True)
            else:
                weighed = (logits * powers).sum(-1, keepdim=True)
            mean = weighed.div_(total)
            entropy[rows] = (log_total - mean)[:, 0]
            if slope is None:
                continue
            towards = powers.mul_(total.reciprocal_().neg_())
            if bend is not None:
                # dH/dz = -p (log p + H): what the logits z do to the entropy. log p + H is z minus its mean.
                bend[rows] = _to_hidden((logits - mean).mul_(towards), factor, weight, wide)
            towards.scatter_add_(1, target[rows, None], torch.ones_like(chosen))
            slope[rows] = _to_hidden(towards, factor, weight, wide)
        if slope is not None:
            ctx.save_for_backward(*(x for x in (slope, bend) if x is not None))
        if bend is None:
            ctx.mark_non_differentiable(entropy)
        return logprob, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_logprob, grad_entropy):
        slope, *bend = ctx.saved_tensors
        grad = slope * grad_logprob[:, None].to(slope.dtype)
        if bend:
            grad = grad + bend[0] * grad_entropy[:, None].to(slope.dtype)
        return grad, *(None,) * 10


def _to_hidden(grad: torch.Tensor, factor: torch.Tensor, weight: torch.Tensor, wide: bool) -> torch.Tensor:
    """From the gradient towards the softmax's inputs, which may be overwritten, to that towards the hidden states."""
    if factor.shape[1] > 1:
        return product(grad.mul_(factor).to(weight.dtype), weight.t(), wide)
    return product(grad.to(weight.dtype), weight.t(), wide) * factor


def token_logprobs(
    hidden: torch.Tensor,
    head: torch.nn.Linear,
    target: torch.Tensor,
    temperature: torch.Tensor,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
    entropy_gradient: bool = False,
    chunk: int = _CHUNK,
    wide: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprob of `target` and entropy at each row of `hidden` [N, H], in float32 at least.

    The entropy has a gradient if `entropy_gradient` asks for one: it takes the memory of another `hidden`.
    With `wide` its products are oneDNN's where that pays (base/products.py). `temperature` divides the logits; 0 stands for greedy decoding, whose logprobs are reported at 1.
    """
    temperature = torch.where(temperature == 0, torch.ones_like(temperature), temperature)
    with_grad = torch.is_grad_enabled() and hidden.requires_grad
    bias = None if head.bias is None else head.bias.detach()
    return _TokenLogprobs.apply(
        hidden,
        head.weight.detach(),
        bias,
        target,
        temperature,
        softcap,
        scale,
        with_grad,
        entropy_gradient,
        chunk,
        wide,
    )
