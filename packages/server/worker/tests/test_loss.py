"""Advantages, the policy loss and token logprobs against plain-Python references and finite differences."""

import math

import pytest
import torch
import train_reference as reference
from train_tiny import policy_loss

from hone_worker.train import token_logprobs as logprobs_module
from hone_worker.train.advantages import group_advantages
from hone_worker.train.objectives.policy_gradient import PolicyGradient as LossConfig
from hone_worker.train.token_logprobs import token_logprobs


def rewards_and_groups():
    rewards = [0.3, 1.7, -0.4, 0.1, 0.1, 0.1, 2.0, 5.0, 1.0, 1.0 + 1e-15, 4.0]
    groups = [0, 0, 0, 1, 1, 1, 2, 2, 7, 7, 9]
    return rewards, groups


@pytest.mark.parametrize("scale", ["none", "group"])
def test_advantages_agree_with_the_reference(scale):
    rewards, groups = rewards_and_groups()
    ours = group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups), scale)
    assert ours.values.tolist() == pytest.approx(
        reference.advantages(rewards, groups, scale), abs=1e-12, rel=1e-12
    )
    assert (ours.equal_groups, ours.groups) == (2, 5)


def test_equal_rewards_give_exactly_zero_and_nearly_equal_ones_do_not():
    # The mean of these three is not 0.1 in floating point.
    assert sum([0.1] * 3) / 3 != 0.1
    ours = group_advantages(torch.tensor([0.1] * 3, dtype=torch.float64), torch.zeros(3), "group")
    assert ours.values.tolist() == [0.0, 0.0, 0.0]
    near = group_advantages(torch.tensor([1.0, 1.0 + 1e-9], dtype=torch.float64), torch.zeros(2), "none")
    assert near.values[0] < 0 < near.values[1]


def scattered(count: int, seed: int):
    """Logprobs whose ratios fall on both sides of both clips and of the cap, none on a kink."""
    random = torch.Generator().manual_seed(seed)
    start = -torch.rand(count, generator=random, dtype=torch.float64) * 3 - 0.5
    now = start + (torch.rand(count, generator=random, dtype=torch.float64) - 0.5) * 1.2
    sampler = (start + (torch.rand(count, generator=random, dtype=torch.float64) - 0.5) * 2.5).clamp(
        max=-0.01
    )
    advantage = torch.randn(count, generator=random, dtype=torch.float64)
    advantage[::7] = 0.0
    return now, start, sampler, advantage


def test_policy_loss_and_its_slope_agree_with_the_reference_and_with_finite_differences():
    options = LossConfig(epsilon_low=0.15, epsilon_high=0.3, importance_cap=1.7, normalizer_tokens=37)
    now, start, sampler, advantage = scattered(200, 1)
    rho, weight = (now - start).exp(), (start - sampler).exp()
    for kink in (rho - 0.85, rho - 1.3, weight - 1.7):
        assert kink.abs().min() > 1e-4
    # Every branch is taken.
    for low, sign in ((True, -1), (True, 1), (False, -1), (False, 1)):
        side = rho < 0.85 if low else rho > 1.3
        assert ((advantage.sign() == sign) & side).any()
    assert (weight > 1.7).any() and (weight < 1.7).any()

    now.requires_grad_()
    result = policy_loss(now, start, sampler, advantage, 11, options)
    result.total.backward()
    scale = 11 * 37
    rows = list(zip(now.tolist(), start.tolist(), sampler.tolist(), advantage.tolist(), strict=True))
    expected = math.fsum(reference.token_loss(*row, 0.15, 0.3, 1.7) for row in rows) / scale
    assert result.total.item() == pytest.approx(expected, rel=1e-12)
    slopes = [reference.token_slope(*row, 0.15, 0.3, 1.7) / scale for row in rows]
    assert now.grad.tolist() == pytest.approx(slopes, abs=1e-14)

    step = 1e-6
    for i, (n, s, p, a) in enumerate(rows):
        above = reference.token_loss(n + step, s, p, a, 0.15, 0.3, 1.7)
        below = reference.token_loss(n - step, s, p, a, 0.15, 0.3, 1.7)
        assert float(now.grad[i]) * scale == pytest.approx((above - below) / (2 * step), abs=1e-6)

    clipped_low = sum(1 for n, s, _, a in rows if math.exp(n - s) < 0.85 and a < 0)
    clipped_high = sum(1 for n, s, _, a in rows if math.exp(n - s) > 1.3 and a > 0)
    assert (int(result.low.sum()), int(result.high.sum())) == (clipped_low, clipped_high)
    assert clipped_low and clipped_high


def test_with_detached_start_the_ratio_is_one_and_the_slope_is_the_weighted_advantage():
    now, _, sampler, advantage = scattered(50, 2)
    now.requires_grad_()
    result = policy_loss(now, now.detach(), sampler, advantage, 3, LossConfig())
    result.total.backward()
    weight = (now.detach() - sampler).exp().clamp(max=2.0)
    # Each of the 50 rollouts has one token, and R is 3.
    torch.testing.assert_close(now.grad, -weight * advantage / 3, rtol=1e-12, atol=0)
    assert not result.low.any() and not result.high.any()


def test_no_gradient_flows_through_the_start_or_the_sampler():
    now, start, sampler, advantage = (x.requires_grad_() for x in scattered(20, 3))
    policy_loss(now, start, sampler, advantage.detach(), 3, LossConfig()).total.backward()
    assert start.grad is None and sampler.grad is None and now.grad is not None


def head_case(dtype=torch.float64, bias=False):
    random = torch.Generator().manual_seed(5)
    hidden = torch.randn(11, 6, generator=random, dtype=dtype)
    head = torch.nn.Linear(6, 17, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=dtype))
    head.requires_grad_(False)
    target = torch.randint(17, (11,), generator=random)
    temperature = torch.tensor([1.0, 0.7, 0.0, 1.5, 0.2, 1, 1, 2, 1, 0.9, 1.1])
    return hidden, head, target, temperature


@pytest.mark.parametrize(
    ("softcap", "scale", "bias"), [(None, 1.0, False), (None, 0.5, True), (3.0, 1.0, False), (2.0, 2.0, True)]
)
@pytest.mark.parametrize("chunk", [3, 256])
def test_token_logprobs_agree_with_the_reference_and_autograd(monkeypatch, softcap, scale, bias, chunk):
    monkeypatch.setattr(logprobs_module, "_CHUNK", chunk)
    hidden, head, target, temperature = head_case(bias=bias)
    hidden.requires_grad_()
    ours, entropy = token_logprobs(hidden, head, target, temperature, softcap=softcap, scale=scale)
    pull = torch.linspace(-1, 2, 11, dtype=torch.float64)
    (ours * pull).sum().backward()
    grad, hidden.grad = hidden.grad, None

    logits = head(hidden) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    exact = torch.where(temperature == 0, 1.0, temperature.double())
    for i in range(11):
        row = reference.row_logprobs(logits[i].tolist(), float(temperature[i]))
        assert ours[i].item() == pytest.approx(row[int(target[i])], abs=1e-12)
        assert entropy[i].item() == pytest.approx(-math.fsum(math.exp(x) * x for x in row), abs=1e-12)
    plain = torch.log_softmax(logits / exact[:, None], -1).gather(1, target[:, None])[:, 0]
    (plain * pull).sum().backward()
    torch.testing.assert_close(grad, hidden.grad, rtol=1e-10, atol=1e-12)
    assert head.weight.grad is None


def test_token_logprobs_pass_finite_differences():
    hidden, head, target, temperature = head_case()
    hidden.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda h: token_logprobs(h, head, target, temperature, softcap=4.0)[0], (hidden,), eps=1e-6, atol=1e-6
    )


def test_logprobs_of_a_bfloat16_head_are_float32():
    hidden, head, target, temperature = head_case(torch.bfloat16)
    hidden.requires_grad_()
    ours, _ = token_logprobs(hidden, head, target, temperature)
    assert ours.dtype == torch.float32
    ours.sum().backward()
    grad, hidden.grad = hidden.grad, None
    exact = torch.where(temperature == 0, 1.0, temperature)
    plain = torch.log_softmax(head(hidden).float() / exact[:, None], -1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=2e-6)
    plain.sum().backward()
    torch.testing.assert_close(grad, hidden.grad, rtol=0.02, atol=0.02)
