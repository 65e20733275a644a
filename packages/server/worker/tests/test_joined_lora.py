"""Adapters of neighbouring layers as one function: the numbers of the plain way, and what is kept for the backward."""

from __future__ import annotations

import pytest
import torch
from test_compute_paths import base_with
from test_packing import adapter, family, forward_backward, micro_batches, random_forest
from torch import Tensor, nn

from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.joined_lora import JoinedLora
from hone_worker.base.lora import LoraRouter, LoraSpec, LoraWeights, inject

SPEC = LoraSpec(r=3, alpha=12.0)
OUT = {"q_proj": 10, "k_proj": 6, "v_proj": 4}


class Attention(nn.Module):
    """Three layers over one input, used in another order than they are named."""

    def __init__(self, dtype: torch.dtype, bias: bool) -> None:
        super().__init__()
        for name, out in OUT.items():
            layer = nn.Linear(8, out, bias=bias, dtype=torch.float64)
            random = torch.Generator().manual_seed(out)
            for parameter in layer.parameters():
                parameter.data = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            setattr(self, name, layer.to(dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.v_proj(x), self.q_proj(x), self.k_proj(x)


def built(dtype: torch.dtype, joined: bool, bias: bool = False) -> tuple[Attention, LoraRouter]:
    model = Attention(dtype, bias).requires_grad_(False)
    router = inject(model)
    if joined:
        router.joined = JoinedLora(router)
    return model, router


def drawn(dtype: torch.dtype, names=tuple(OUT)) -> LoraWeights:
    random = torch.Generator().manual_seed(5)
    pairs = {
        name: tuple(
            torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_()
            for shape in ((SPEC.r, 8), (OUT[name], SPEC.r))
        )
        for name in OUT
    }
    return LoraWeights(SPEC, {name: pairs[name] for name in names})  # type: ignore[misc]


def gradients(dtype, joined, *, bias=False, names=tuple(OUT), used=(0, 1, 2), exact=None):
    """Outputs, and the gradients of x and of every A and B, for inputs that are exact in bfloat16."""
    model, router = built(dtype, joined, bias)
    weights = drawn(exact or torch.promote_types(torch.float32, dtype), names)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2, 50, 8, generator=random).bfloat16().to(dtype).requires_grad_()
    with router.single(weights):
        outputs = model(x)
    wanted = [torch.randn(out.shape, generator=random).bfloat16().to(dtype) for out in outputs]
    torch.autograd.backward([outputs[i] for i in used], [wanted[i] for i in used])
    return [*outputs, x.grad, *(side.grad for pair in weights.tensors.values() for side in pair)]


def assert_close(found, wanted, limit):
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            assert (one.double() - other.double()).norm() <= limit * other.double().norm()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("names", [tuple(OUT), ("q_proj", "v_proj"), ()])
@pytest.mark.parametrize("used", [(0, 1, 2), (1,)])
def test_it_equals_the_plain_way(bias, names, used):
    """Also where a layer has no adapter, and where no gradient comes from one."""
    given = {"bias": bias, "names": names, "used": used}
    plain = gradients(torch.float32, False, **given)
    assert_close(gradients(torch.float32, True, **given), plain, 1e-6)
    exact = gradients(torch.float64, False, **given)
    assert_close(gradients(torch.float64, True, **given), exact, 1e-14)
    # In bfloat16 over the same numbers in float64: weights and adapters are rounded, sums are not.
    rounded = gradients(torch.bfloat16, True, **given)
    assert all(x is None or x.dtype == torch.float32 for x in rounded[4:])
    assert_close(rounded, exact, 1e-2)


def test_the_backward_passes_finite_differences():
    model, router = built(torch.float64, joined=True, bias=True)
    weights = drawn(torch.float64)
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    sides = weights.parameters()

    def run(x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        pairs = dict(zip(sorted(OUT), zip(given[::2], given[1::2], strict=True), strict=True))
        with router.single(LoraWeights(SPEC, pairs)):
            return model(x)

    assert torch.autograd.gradcheck(run, (x, *sides))


def test_x_is_kept_once_and_nothing_else_of_its_length_but_what_a_gives():
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    model, router = built(torch.bfloat16, joined=True)
    x = torch.randn(7, 8).bfloat16().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), router.single(drawn(torch.float32)):
        model(x)
    assert sorted(kept.values()) == sorted([7 * 3 * SPEC.r, 7 * 8])


def test_copies_follow_the_masters_and_go_with_them():
    model, router = built(torch.float32, joined=True)
    weights, x = drawn(torch.float32), torch.ones(1, 8)
    with torch.no_grad(), router.single(weights):
        before = model(x)
        weights.tensors["q_proj"][1].add_(1.0)
        after = model(x)
    assert not torch.equal(before[1], after[1]) and torch.equal(before[0], after[0])
    assert isinstance(router.joined, JoinedLora) and len(router.joined._copies) == 1
    del weights
    assert len(router.joined._copies) == 0


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma3"])
def test_a_model_has_the_gradients_of_the_plain_way(name):
    base = family(name)
    weights = adapter(base)
    packed = micro_batches(random_forest(1), "tree")
    _, values, wanted = forward_backward(base, weights, packed)
    base.router.joined = JoinedLora(base.router)
    _, found, gradient = forward_backward(base, weights, packed)
    assert ((found - values).abs() / values.abs().clamp(min=1.0)).max() <= 1e-5
    for path, tensor in wanted.items():
        assert (gradient[path] - tensor).norm() <= 1e-5 * tensor.norm(), path


def test_the_paths_of_a_base_ask_for_it():
    assert base_with(ComputePaths()).router.joined is None
    assert isinstance(base_with(ComputePaths(lora="joined")).router.joined, JoinedLora)
