"""The folder that an operation writes into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone_worker.base.free_memory import out_of_memory
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.checkpoint import clear_staging, open_staging


@contextmanager
def staged(folder: Path) -> Iterator[None]:
    """What fails, or is ended early, leaves the folder empty."""
    open_staging(folder)
    try:
        yield
    except BaseException as error:
        clear_staging(folder)
        if not out_of_memory(error):
            raise
        # Micro-batches are made smaller before that; this is what does not grow with them.
        raise HoneWorkerError(
            "There is too little memory for the adapter with its gradient and moments. Give the engine less "
            "(`serve --engine-share`), or make the model with a smaller `r`.",
            code="out_of_memory",
            status=500,
        ) from error
