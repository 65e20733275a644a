"""The whole run at the shape that a processor can do: every stage, with real numbers in every row."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpu import all as runner
from gpu.predictions import PREDICTIONS, table

HERE = Path(__file__).parent
Found = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    out = tmp_path_factory.mktemp("gpu")
    worker = HERE.parents[1] / "packages/server/worker"
    environment = {
        **os.environ,
        "PYTHONPATH": str(worker),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        # The real vLLM takes a minute to start: `pnpm test:engine --engine vllm` runs its stage.
        "HONE_VLLM_PYTHON": "",
    }
    command = [
        sys.executable,
        str(HERE / "all.py"),
        "--shape",
        "tiny",
        "--out",
        str(out),
        "--deadline",
        "1500",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1600, check=False)
    result: Found = json.loads((out / "results.json").read_text())
    result["printed"], result["status"] = done.stdout, done.returncode
    assert done.returncode == 0, (done.stdout[-4000:], done.stderr[-2000:])
    return result


def rows(found: Found, **wanted: Any) -> list[dict[str, Any]]:
    chosen = [row for row in found["rows"] if all(row.get(k) == v for k, v in wanted.items())]
    assert chosen, wanted
    return chosen


def test_every_stage_ends_well_and_says_something(found: Found) -> None:
    names = [stage["name"] for stage in found["stages"]]
    assert names == list(dict.fromkeys(name for name, _, _, _ in runner.STAGES)) and len(names) == 11
    assert all(stage["outcome"] == "ok" for stage in found["stages"]), found["stages"]
    assert {row["stage"] for row in found["rows"]} == set(names)
    assert not [row for row in found["rows"] if row["kind"] in ("failed", "skipped")]


def test_a_base_in_4_bits_takes_less_and_trains(found: Found) -> None:
    if rows(found, stage="bits")[-1]["kind"] == "refused":
        pytest.skip("bitsandbytes is not installed")
    held = {row["variant"]: row["bytes"] for row in rows(found, kind="weights")}
    trained = {row["variant"] for row in rows(found, stage="bits", kind="trainer")}
    assert trained == held.keys() and len(held) == 4
    assert held["4-bit base"] < 0.75 * held["all bits"] == 0.75 * held["8-bit moments"]


def test_a_step_that_finds_too_little_memory_has_the_same_gradient_in_halves(found: Found) -> None:
    (row,) = rows(found, kind="out_of_memory")
    assert row["splits"] == 1 and 0 < row["gradient_apart"] <= 1e-5 and row["redone_apart"] == 0
    (row,) = rows(found, kind="long")
    assert row["tokens"] == 192 and row["unique_per_second"] > 0


def test_the_same_steps_have_the_same_curve(found: Found) -> None:
    (curve,) = rows(found, kind="curve")
    assert (
        curve["device"] == "cpu" and len(curve["rewards"]) == 2 and all(0 < r < 1 for r in curve["rewards"])
    )
    (row,) = rows(found, kind="learning")
    assert row["apart"] == 0 and row["gain"] == row["gain_on_cpu"]


def test_every_number_is_finite_and_positive(found: Found) -> None:
    for kind, keys in {
        "copy": ["bytes_per_second"],
        "gemm": ["flops_per_second"],
        "gemm_floor": ["microseconds_per_token"],
        "trainer": ["seconds", "unique_per_second", "logical_per_second", "mfu", "flops"],
        "baseline": ["seconds", "unique_per_second", "ours_times_as_fast"],
        "decode": [],
        "publish": ["seconds"],
        "kernels": ["microseconds", "launches"],
    }.items():
        for row in rows(found, kind=kind):
            for key in keys:
                assert math.isfinite(row[key]) and row[key] > 0, (kind, key, row)
    for row in rows(found, stage="decode", kind="decode"):
        assert math.isfinite(row["tokens_per_second"]) and row["tokens_per_second"] > 0


def test_what_is_computed_is_right(found: Found) -> None:
    trees = rows(found, kind="trees")
    assert {row["attention"] for row in trees} >= {"ranges", "masked"}
    for row in trees:
        assert row["trees"] == 4
        # New trees in each run: a gradient that is small itself has more of rounding in it.
        assert 0 < row["logprob_error"] <= row["bound"] and 0 < row["gradient_error"] <= 10 * row["bound"], (
            row
        )
    for row in rows(found, stage="correctness", kind="decode"):
        assert row["policies"] == 4 and row["tokens"] > 100
        assert 0 < row["mean_apart"] <= 1e-5, row
    assert {row["way"] for row in rows(found, stage="correctness", kind="decode")} == {"eager", "graph"}


def test_shared_tokens_are_counted_once(found: Found) -> None:
    (s1,) = rows(found, kind="trainer", work="S1", variant="fastest")
    assert s1["unique_tokens"] < s1["logical_tokens"]
    # Two groups: a prompt of 24, four answers of 8; the last token of an answer is fed to nothing.
    assert (s1["unique_tokens"], s1["logical_tokens"], s1["trained_tokens"]) == (2 * (24 + 4 * 7), 256, 64)
    for name in ("S2", "S3", "S4"):
        assert rows(found, kind="trainer", work=name)
    for way in ("eager", "graph"):
        assert [row["rows"] for row in rows(found, stage="decode", kind="decode", way=way)] == [1, 5]
    assert all(row["graphs_taken"] > 0 for row in rows(found, stage="decode", kind="decode", way="graph"))
    assert {row["way"] for row in rows(found, kind="baseline")} == {
        "peft + transformers",
        "peft + transformers, recomputed",
        "TRL's logprobs, recomputed",
    }


def test_the_table_comes_last(found: Found) -> None:
    last = found["printed"].rstrip().splitlines()[-len(PREDICTIONS) :]
    assert [line.split("  ")[0] for line in last] == [prediction.what for prediction in PREDICTIONS]
    assert any(line.endswith("met") for line in last) and any(line.endswith("not measured") for line in last)


def test_a_prediction_is_met_missed_or_not_measured() -> None:
    def outcome(*measured: float) -> list[str]:
        made = [
            {"stage": "trainer", "shape": "4b", "kind": "trainer", "work": "S4", "unique_per_second": one}
            for one in measured
        ]
        (line,) = [line for line in table(made) if line[0] == "4b training, S4"]
        return line[1:]

    assert outcome() == ["≥ 12500 unique tokens/s", "–", "not measured"]
    assert outcome(11_000, 12_600)[1:] == ["1.26e+04 unique tokens/s", "met"]
    assert outcome(11_000)[2] == "missed"


def test_a_stage_that_hangs_or_breaks_is_told_of() -> None:
    began = time.monotonic()
    outcome, why = runner.run_apart(lambda: time.sleep(600), 0.3)
    assert outcome == "deadline" and time.monotonic() - began < 60 and "0 s" in why
    outcome, why = runner.run_apart(lambda: [][1], 60)
    assert outcome == "failed" and "IndexError" in why
    outcome, why = runner.run_apart(lambda: os._exit(3), 60)
    assert (outcome, why) == ("failed", "it ended with status 3")
    assert runner.run_apart(lambda: None, 60) == ("ok", "")


def test_told_to_end_it_ends_its_stage(tmp_path: Path) -> None:
    told = tmp_path / "child"
    program = (
        "import os, signal, time\n"
        "from gpu.all import run_apart, told_to_end\n"
        "signal.signal(signal.SIGTERM, told_to_end)\n"
        f"run_apart(lambda: (open({str(told)!r}, 'w').write(str(os.getpid())), time.sleep(600)), 600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    runs = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while not (told.exists() and told.read_text()):
        time.sleep(0.02)
    runs.terminate()
    assert runs.wait(60) == 143
    child = int(told.read_text())
    ended = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and "Z" not in _state(child):
        assert time.monotonic() < ended
        time.sleep(0.02)


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_a_stage_runs_in_a_process_of_its_own_where_a_fork_does_not_do(tmp_path: Path) -> None:
    stage = runner.Planned("facts", "gpu.facts", "tiny", 1)
    until = time.monotonic() + 300
    ending = runner._run_stage(stage, until, tmp_path, tmp_path / "results.jsonl", fresh=True)
    assert ending["outcome"] == "ok", ending
    written = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in written] == ["versions", "device", "copy", "gemm"]
    broken = runner.Planned("none", "gpu.nothing", "tiny", 1)
    ending = runner._run_stage(broken, until, tmp_path, tmp_path / "results.jsonl", fresh=True)
    assert (ending["outcome"], ending["why"]) == ("failed", "it ended with status 1")


def test_stages_by_shape() -> None:
    def names(shapes: list[str], only: list[str] | None = None) -> list[tuple[str, str]]:
        return [(stage.name, stage.shape) for stage in runner.planned(shapes, only)]

    assert names(["4b", "0.6b"], ["trainer"]) == [("trainer", "4b"), ("trainer", "0.6b")]
    assert names(["0.6b"], ["trainer", "facts", "baseline"]) == [
        ("facts", "0.6b"),
        ("trainer", "0.6b"),
        ("baseline", "0.6b"),
    ]
    assert len(names(["tiny"])) == len(set(names(["tiny"]))) == 11
    # What is for a second command is not in the ten minutes of the first.
    assert not {"long", "learning"} & {name for name, _ in names(["4b", "0.6b"])}
    assert names(["4b"], ["long", "learning"]) == [("long", "4b"), ("learning", "4b")]
