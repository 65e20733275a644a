"""What docs/gpu.md predicts, and how each prediction fares in the rows that a run left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    what: str
    shape: str | None  # None: whatever the shape
    where: dict[str, Any]  # keys of the row that it is about
    value: str  # the key whose number is compared
    least: float | None = None
    most: float | None = None
    scale: float = 1.0
    unit: str = ""
    #: Of several rows that fit.
    of: Callable[[list[float]], float] = max

    def measured(self, rows: list[Row]) -> float | None:
        found = [
            float(row[self.value]) * self.scale
            for row in rows
            if (self.shape is None or row.get("shape") == self.shape)
            and all(row.get(key) == wanted for key, wanted in self.where.items())
            and isinstance(row.get(self.value), int | float)
        ]
        return self.of(found) if found else None

    @property
    def bound(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    def outcome(self, rows: list[Row]) -> str:
        value = self.measured(rows)
        if value is None:
            return "not measured"
        met = value >= self.least if self.least is not None else value <= (self.most or 0.0)
        return "met" if met else "missed"


def _trainer(shape: str, work: str, least: float) -> Prediction:
    where = {"stage": "trainer", "kind": "trainer", "work": work}
    return Prediction(
        f"{shape} training, {work}", shape, where, "unique_per_second", least, unit="unique tokens/s"
    )


def _mfu(shape: str, least: float) -> Prediction:
    where = {"stage": "trainer", "kind": "trainer", "work": "S3"}
    return Prediction(f"{shape} training, S3, MFU", shape, where, "mfu", least, scale=100, unit="%")


def _ladder(variant: str, least: float) -> Prediction:
    where = {"stage": "trainer", "kind": "trainer", "work": "S3", "variant": variant}
    return Prediction(f"4b, S3, {variant}", "4b", where, "unique_per_second", least, unit="unique tokens/s")


def _decode(shape: str, rows: int, least: float) -> Prediction:
    where = {"stage": "decode", "kind": "decode", "way": "graph", "rows": rows}
    return Prediction(
        f"{shape} decoding by graph, {rows} rows", shape, where, "tokens_per_second", least, unit="tokens/s"
    )


PREDICTIONS: list[Prediction] = [
    Prediction("copy", None, {"kind": "copy"}, "bytes_per_second", 2.9, scale=1e-12, unit="TB/s"),
    Prediction(
        "bf16 product of 8192³", None, {"kind": "gemm"}, "flops_per_second", 750, scale=1e-12, unit="TFLOP/s"
    ),
    Prediction(
        "4b, its own matmuls",
        "4b",
        {"kind": "gemm_floor"},
        "microseconds_per_token",
        most=21,
        unit="µs/token",
    ),
    Prediction(
        "0.6b, its own matmuls",
        "0.6b",
        {"kind": "gemm_floor"},
        "microseconds_per_token",
        most=3.6,
        unit="µs/token",
    ),
    Prediction(
        "trees, float32, logprobs", None, {"kind": "trees", "dtype": "float32"}, "logprob_error", most=1e-5
    ),
    Prediction(
        "trees, float32, gradients", None, {"kind": "trees", "dtype": "float32"}, "gradient_error", most=1e-5
    ),
    Prediction(
        "trees, bfloat16, logprobs", None, {"kind": "trees", "dtype": "bfloat16"}, "logprob_error", most=1e-2
    ),
    Prediction(
        "trees, bfloat16, gradients",
        None,
        {"kind": "trees", "dtype": "bfloat16"},
        "gradient_error",
        most=1e-2,
    ),
    Prediction(
        "decoder and trainer, mean", None, {"stage": "correctness", "kind": "decode"}, "mean_apart", most=5e-3
    ),
    _ladder("before", 10_600),
    _ladder("+ joined adapters, fused optimizer", 16_400),
    _ladder("+ varlen", 17_500),
    _ladder("+ compiled layer", 22_700),
    _ladder("+ loss chunk", 25_000),
    _trainer("4b", "S3", 24_000),
    _mfu("4b", 40),
    _trainer("4b", "S4", 12_500),
    _trainer("0.6b", "S3", 80_000),
    _mfu("0.6b", 20),
    Prediction(
        "times peft + transformers, S3",
        None,
        {"kind": "baseline", "work": "S3"},
        "ours_times_as_fast",
        3,
        of=min,
    ),
    Prediction(
        "times peft + transformers, S1",
        None,
        {"kind": "baseline", "work": "S1"},
        "ours_times_as_fast",
        6,
        of=min,
    ),
    Prediction(
        "4b, activations, none recomputed",
        "4b",
        {"stage": "trainer", "kind": "trainer", "variant": "+ compiled layer", "recomputed": 0},
        "bytes_per_token",
        most=3.6,
        scale=1e-6,
        unit="MB/token",
        of=min,
    ),
    Prediction("4b in 4 bits, training", "4b", {"kind": "bits"}, "training", 0.97, unit="of bfloat16"),
    Prediction(
        "4b in 4 bits, decoding one row", "4b", {"kind": "bits"}, "decoding", 0.45, unit="of bfloat16"
    ),
    _decode("4b", 1, 0.8 * 370),
    _decode("4b", 64, 0.7 * 10_800),
    _decode("4b", 256, 0.7 * 16_300),
    _decode("0.6b", 1, 0.6 * 2_400),
    _decode("0.6b", 64, 0.7 * 21_900),
    _decode("0.6b", 256, 0.7 * 24_300),
    Prediction(
        "a new policy's first token",
        None,
        {"kind": "publish", "way": "graph"},
        "seconds",
        most=50,
        scale=1e3,
        unit="ms",
    ),
    Prediction(
        "4b, rank 16, a new policy's first token on vLLM",
        "4b",
        {"kind": "vllm_publish"},
        "seconds",
        most=1,
        unit="s",
    ),
    Prediction(
        "vLLM and trainer, how far the ratio is from 1", None, {"kind": "vllm_ratio"}, "ratio_off", most=0.01
    ),
    Prediction(
        "halved for want of memory, gradient",
        None,
        {"kind": "out_of_memory"},
        "gradient_apart",
        most=1e-2,
    ),
    Prediction("learning, device and processor", None, {"kind": "learning"}, "apart", most=0.05),
]


def table(rows: list[Row]) -> list[list[str]]:
    """A line for each prediction: what, predicted, measured, outcome."""
    lines = []
    for prediction in PREDICTIONS:
        value = prediction.measured(rows)
        measured = "–" if value is None else f"{value:.3g} {prediction.unit}".strip()
        lines.append(
            [
                prediction.what,
                f"{prediction.bound} {prediction.unit}".strip(),
                measured,
                prediction.outcome(rows),
            ]
        )
    return lines
