"""Products by oneDNN are those of torch.mm, and the trainer's numbers with them those of rows alone in float64."""

import pytest
import torch
from test_packing import adapter, family, forward_backward, micro_batches, random_forest
from test_tree_ways import errors

from hone_worker.base import fused_layers, fused_linears, layer_math, products
from hone_worker.base.compute_paths import ComputePaths
from hone_worker.base.products import add_over_rows, in_steps, product, product_onto, wide_kernels
from hone_worker.packing.scripted import scripted
from hone_worker.process.errors import HoneWorkerError


@pytest.fixture
def every_product(monkeypatch) -> list[int]:
    """Small ones too, of any number of rows. Gives the rows of those that oneDNN got."""
    taken: list[int] = []

    def worth(rows: int, _each: int, weight: torch.Tensor) -> bool:
        plain = weight.is_contiguous() or weight.t().is_contiguous()
        taken.extend([rows] * plain)
        return plain

    monkeypatch.setattr(products, "_worth", worth)
    # A scripted function has its thresholds within it: what it was made of has not.
    for module in (fused_layers, fused_linears):
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.jit.ScriptFunction):
                monkeypatch.setattr(module, name, value._torchdynamo_inline)
    return taken


@pytest.mark.parametrize("seed", range(20))
def test_they_are_those_of_mm(seed, every_product):
    random = torch.Generator().manual_seed(seed)
    rows, inner, out = torch.randint(1, 90, (3,), generator=random).tolist()

    def draw(*shape):
        return torch.randn(*shape, generator=random)

    # Beside one another in memory, and columns of something wider.
    wider = draw(rows, inner + out + 8)
    for x, y in ((draw(rows, inner), draw(rows, out)), (wider[:, :inner], wider[:, inner : inner + out])):
        weight, summand = draw(out, inner), draw(rows, out)
        total = draw(inner, out)
        # oneDNN wants what it reads row by row side by side, and makes a copy where it is not.
        found = product(x, weight, True)
        torch.testing.assert_close(found.double(), x.double() @ weight.double().t(), rtol=1e-4, atol=1e-4)
        assert torch.equal(found, product(x, weight, True))
        transposed = weight.t().contiguous().t()
        torch.testing.assert_close(product(x, transposed, True), found, rtol=1e-5, atol=1e-5)
        onto = product_onto(summand, x, weight, True)
        torch.testing.assert_close(onto, summand + found, rtol=1e-4, atol=1e-4)
        wanted = total.double() + x.double().t() @ y.double()
        add_over_rows(total, x, y, True)
        torch.testing.assert_close(total.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "llama"])
def test_logprobs_and_every_gradient_are_those_of_rows_alone(name, every_product, monkeypatch):
    monkeypatch.setattr(fused_layers, "_PIECE_ROWS", 16)
    monkeypatch.setattr(fused_layers, "_PIECE_BYTES", 0)
    base, exact = family(name, paths=ComputePaths(products="onednn")), family(name, torch.float64)
    assert (base.paths.layer, base.paths.wide_products) == ("fused", True) and not exact.paths.wide_products
    for seed in range(6):
        found = forward_backward(base, adapter(base), micro_batches(random_forest(seed), "tree"))
        wanted = forward_backward(exact, adapter(base), micro_batches(random_forest(seed), "rows"))
        assert errors(found, wanted) <= 1e-5, seed
    assert len(every_product) > 100


def test_scripted_layers_compute_what_they_are_made_of(monkeypatch):
    """The same bytes, with shapes of which some are oneDNN's."""
    made = [v for v in vars(layer_math).values() if isinstance(v, torch.jit.ScriptFunction)]
    assert len(made) == 9, "TorchScript takes all of them"
    x, weight, a, b = (
        torch.randn(*shape, generator=torch.Generator().manual_seed(7))
        for shape in ((300, 256), (512, 256), (16, 256), (512, 16))
    )
    given = ([weight, weight], [None, torch.arange(511, -1, -1)], [a, None], [b, None], 2.0, weight[0])
    matrix = layer_math.joined_matrix(*given)
    assert torch.equal(matrix, layer_math.joined_matrix._torchdynamo_inline(*given))
    for wide in (False, True):
        given = (x, matrix, matrix[:, 0].contiguous(), 1e-6, 128, wide)
        for _ in range(3):  # it is made faster after its first runs
            found = layer_math.project(*given)
            wanted = layer_math.project._torchdynamo_inline(*given)
            assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def test_what_torchscript_does_not_take_goes_through_python():
    def steps(count: int):
        yield from range(count)

    def joined(*parts: int, **named: int) -> int:
        return sum(parts) + sum(named.values())

    sourceless: dict = {}
    exec("def twice(x: int) -> int:\n    return 2 * x", sourceless)
    for function in (steps, joined, sourceless["twice"]):
        assert scripted(function) is function


@pytest.mark.parametrize("most", [1, 7, 32, 100, 256])
def test_steps_cover_all_rows_in_few_sizes(most):
    sizes = set()
    for rows in range(0, 600, 13):
        taken = [at for piece in in_steps(rows, most) for at in range(piece.start, piece.stop)]
        assert taken == list(range(rows))
        sizes |= {piece.stop - piece.start for piece in in_steps(rows, most)}
    assert max(sizes) <= most and len({size for size in sizes if size % products.STEP == 0}) <= most // 32 + 1


def test_who_gets_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for maker, wide in (("AuthenticAMD", True), ("GenuineIntel", False), (None, False)):
        file = tmp_path / f"{maker}"
        if maker:
            file.write_text(f"processor\t: 0\nvendor_id\t: {maker}\ncpu family\t: 26\n")
        monkeypatch.setattr(products, "CPUINFO", file)
        wide_kernels.cache_clear()
        assert wide_kernels() is wide
        resolved = ComputePaths().resolved(torch.device("cpu"), torch.float32)
        assert resolved.products == ("onednn" if wide else "mkl")
    monkeypatch.setattr(products, "CPUINFO", tmp_path / "AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    wide_kernels.cache_clear()
    assert not wide_kernels()
    wide_kernels.cache_clear()
    for device, dtype in (("cpu", torch.bfloat16), ("cpu", torch.float64), ("cuda", torch.float32)):
        with pytest.raises(HoneWorkerError, match="products=onednn is for float32"):
            ComputePaths(products="onednn").resolved(torch.device(device), dtype)
        assert ComputePaths().resolved(torch.device(device), dtype).products == "mkl"
