"""Norms, gates and rotary positions through torch's compiler: once for all layers and lengths, the same numbers.

The compiler's own back end takes minutes of a processor's time, so that here its tracing and its backward are
what is looked at, with kernels as torch has them. `bench/gpu` runs the rest.
"""

from __future__ import annotations

import pytest
import torch
from test_packing import adapter, family, forward_backward, micro_batches, random_forest
from torch._dynamo.testing import CompileCounterWithBackend

from hone_worker.base.compute_paths import ComputePaths
from hone_worker.packing import compiled_parts
from hone_worker.packing.compiled_parts import compile_parts
from hone_worker.process.errors import HoneWorkerError


@pytest.fixture
def counter(monkeypatch):
    torch._dynamo.reset()
    counter, plain = CompileCounterWithBackend("eager"), torch.compile
    monkeypatch.setattr(compiled_parts.torch, "compile", lambda f: plain(f, backend=counter, fullgraph=True))
    yield counter
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "graphs"), [("qwen3", 5)])
def test_it_computes_the_same_and_compiles_once_for_all_layers_and_lengths(counter, name, graphs):
    base = family(name, paths=ComputePaths(layer="eager"))
    weights = adapter(base)
    parts = [micro_batches(random_forest(seed), "tree") for seed in (1, 2, 3)]
    wanted = [forward_backward(base, weights, part) for part in parts]
    assert compile_parts(base.model) > 2 * base.model.config.num_hidden_layers
    counts = []
    for part, (_, values, gradient) in zip(parts, wanted, strict=True):
        _, found, other = forward_backward(base, weights, part)
        assert ((found - values).abs() / values.abs().clamp(min=1.0)).max() <= 1e-5
        assert all((other[n] - g).norm() <= 1e-5 * g.norm() for n, g in gradient.items())
        counts.append(counter.frame_count)
    assert counts == [graphs] * 3


def test_what_is_not_packed_is_computed_as_before(counter):
    base = family("qwen3", paths=ComputePaths(layer="eager"))
    compile_parts(base.model)
    rows = micro_batches(random_forest(1), "rows")
    forward_backward(base, adapter(base), rows)
    assert counter.frame_count == 0


def test_a_model_that_has_nothing_to_compile_is_refused():
    with pytest.raises(HoneWorkerError, match="layer=compiled"):
        compile_parts(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert (
        ComputePaths.parse("layer=compiled").resolved(torch.device("cpu"), torch.float32).layer == "compiled"
    )
