"""What a base can take of a step: refused before anything is computed."""

from __future__ import annotations

from hone_worker.base.model import Base
from hone_worker.process.errors import HoneWorkerError
from hone_worker.train.micro_batch import MiniBatch
from hone_worker.train.step_data import StepData


def check_limits(base: Base, data: StepData, steps: list[MiniBatch]) -> None:
    highest = int(data.tokens.max())
    if highest >= base.vocab_size:
        raise HoneWorkerError(
            f"The step data holds token {highest}; the base has {base.vocab_size} tokens.",
            code="bad_batch",
            param="tokens",
        )
    longest = max(micro_batch.longest for step in steps for micro_batch in step.micro_batches)
    if longest > base.max_model_len:
        raise HoneWorkerError(
            f"A sequence has {longest} tokens, the base takes {base.max_model_len}. "
            "Leave such rollouts out (`too_long`).",
            code="too_long",
        )
