"""What is sampled, and that its log probability is that of the distribution it was sampled from."""

from __future__ import annotations

import pytest
import torch

from hone_worker.engine.sampling import RowSampling, SamplingParams, Uniforms, log_distribution, sample


def reference(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """One row, the slow and obvious way."""
    temperature = 1.0 if params.greedy else params.temperature
    p = (logits.double() / temperature).softmax(-1)
    if params.greedy:
        return p.log()
    order = sorted(range(len(p)), key=lambda i: -float(p[i]))
    if params.top_k > 0:
        order = order[: params.top_k]
    total = sum(float(p[i]) for i in order)
    kept, mass = [], 0.0
    for i in order:
        kept.append(i)
        mass += float(p[i]) / total
        if params.top_p < 1 and mass >= params.top_p:
            break
    out = torch.zeros_like(p)
    out[kept] = p[kept] / p[kept].sum()
    return out.log()


ROWS = [
    SamplingParams(),
    SamplingParams(temperature=0.3),
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.7, top_k=5),
    SamplingParams(top_p=0.6),
    SamplingParams(temperature=0.8, top_p=0.9, top_k=20),
    SamplingParams(top_p=0.01),
    SamplingParams(temperature=0.0, top_p=0.1, top_k=1),
    SamplingParams(top_k=10_000),
]


def test_each_row_has_its_own_distribution() -> None:
    logits = torch.randn(len(ROWS), 64, generator=torch.Generator().manual_seed(1)) * 3
    rows = RowSampling.of(ROWS, 64, "cpu")
    logs = log_distribution(logits, rows)
    for i, params in enumerate(ROWS):
        expected = reference(logits[i], params)
        assert torch.equal(expected.isinf(), logs[i].isinf()), params
        finite = ~expected.isinf()
        assert torch.allclose(logs[i][finite].double(), expected[finite], atol=1e-5), params


@pytest.mark.parametrize("params", [ROWS[0], ROWS[3], ROWS[5]], ids=str)
def test_frequencies_follow_the_distribution(params: SamplingParams) -> None:
    count, vocab = 20_000, 24
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(2)) * 2
    uniforms = Uniforms(5)
    drawn = torch.tensor([uniforms.next() for _ in range(count)], dtype=torch.float64)
    rows = RowSampling.of([params] * count, vocab, "cpu")
    out = sample(logits.expand(count, -1), rows, drawn)
    expected = reference(logits, params).exp()
    seen = torch.bincount(torch.tensor([t for t, _, _ in out]), minlength=vocab).double() / count
    assert (seen - expected).abs().max() < 4 * 0.5 / count**0.5
    assert (seen[expected == 0] == 0).all()
    for token, logprob, _ in out[:100]:
        assert logprob == pytest.approx(float(expected[token].log()), abs=1e-5)


def test_extreme_uniforms_never_pick_an_impossible_token() -> None:
    logits = torch.tensor([[float("-inf"), 1.0, 2.0, float("-inf")]] * 2)
    rows = RowSampling.of([SamplingParams()] * 2, 4, "cpu")
    out = sample(logits, rows, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert [t for t, _, _ in out] == [1, 2]


@pytest.mark.parametrize("vocab", [4097, 5120, 49152])
def test_a_large_vocabulary_is_searched_in_blocks_and_gives_the_same_tokens(vocab: int) -> None:
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(64, vocab, generator=generator) * 4
    # Whole blocks without weight, at both ends and between.
    logits[:, :300] = logits[:, 1000:1800] = logits[:, -1:] = float("-inf")
    uniforms = torch.rand(64, generator=generator, dtype=torch.float64)
    uniforms[0], uniforms[1] = 0.0, 1 - 2**-53
    rows = RowSampling.of([SamplingParams()] * 64, vocab, "cpu")
    out = sample(logits, rows, uniforms)
    cumulative = log_distribution(logits, rows).exp().double().cumsum(-1)
    target = uniforms.clamp(max=1 - 2**-40).unsqueeze(1) * cumulative[:, -1:]
    expected = torch.searchsorted(cumulative, target, right=True).squeeze(1).tolist()
    assert [t for t, _, _ in out] == expected
    assert all(logprob > float("-inf") for _, logprob, _ in out)


def test_filters_leave_the_logits_as_they_were() -> None:
    logits = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    before = logits.clone()
    log_distribution(logits, RowSampling.of([SamplingParams(top_k=3)] * 2, 64, "cpu"))
    assert torch.equal(logits, before)


def test_greedy_reports_the_logprob_at_temperature_one_and_the_likeliest_come_along() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    rows = RowSampling.of([SamplingParams(temperature=0), SamplingParams(top_k=2)], 3, "cpu")
    (one, two) = sample(logits, rows, torch.tensor([0.0, 0.0], dtype=torch.float64), top=3)
    assert one[0] == 1 and one[1] == pytest.approx(float(logits[0].log_softmax(-1)[1]), abs=1e-6)
    assert [i for i, _ in one[2]] == [1, 2, 0]
    # Row two keeps two tokens: an impossible third is not reported.
    assert [i for i, _ in two[2]] == [0, 2]


def test_seeds() -> None:
    def draw(seed: int | None, index: int = 0) -> list[float]:
        uniforms = Uniforms(seed, index)
        return [uniforms.next() for _ in range(100)]

    assert draw(3) == draw(3) != draw(3, 1)
    assert draw(-5) == draw(-5)
    assert draw(None) != draw(None)
