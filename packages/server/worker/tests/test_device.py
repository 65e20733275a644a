import pytest
import torch

from hone_worker.base.device import require_device
from hone_worker.process.errors import HoneWorkerError


def test_a_cpu_is_always_there() -> None:
    assert require_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "available", "name", "words"),
    [
        (None, False, "cuda", "a build without CUDA. Run `npx @hone/server setup --torch cuda`"),
        ("13.0", False, "cuda", "finds no NVIDIA GPU"),
        ("13.0", True, "cuda:3", "no GPU 3: this machine has 1"),
    ],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, available: bool, name: str, words: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(HoneWorkerError, match=words):
        require_device(name)
