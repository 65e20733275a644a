"""Every stage of what docs/gpu.md predicts, each under a deadline of its own.

    python3 bench/gpu/all.py --out FOLDER [--deadline 540] [--shape 4b,0.6b | tiny] [--stages facts,trainer]

`results.jsonl` in the folder has a row as soon as it is known, `results.json` all of them after each stage, with how
each stage ended. A stage that hangs is ended and the next one runs. Without a GPU only the shape `tiny` is for use.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The folder above, so that the stages are `gpu.…` and none of them stands in for a module of Python's own.
sys.path[0] = str(Path(__file__).resolve().parents[1])

#: Per stage: its module, the shape that it is for (None: the first of the run), and its share of the time.
STAGES: list[tuple[str, str, str | None, float]] = [
    ("facts", "gpu.facts", None, 20),
    # Where there is no vLLM it ends at once, and those after it have its time.
    ("vllm_engine", "gpu.vllm_engine", None, 120),
    ("own_gemms", "gpu.own_gemms", "4b", 15),
    ("own_gemms", "gpu.own_gemms", "0.6b", 10),
    ("correctness", "gpu.correctness", None, 70),
    ("trainer", "gpu.trainer", "4b", 150),
    ("trainer", "gpu.trainer", "0.6b", 65),
    ("baseline", "gpu.baseline", "4b", 80),
    ("decode", "gpu.decode", "4b", 60),
    ("decode", "gpu.decode", "0.6b", 45),
    ("kernels", "gpu.kernels", None, 25),
    ("bits", "gpu.bits", "4b", 40),
    ("long", "gpu.long", None, 60),
    ("learning", "gpu.learning", None, 60),
]
#: Not among those of the ten minutes: for a second command, `--stages long,learning`. The shape `tiny` tries them too.
SECOND = {"long", "learning"}
# Whether there is a GPU is asked in a way that leaves it alone: a fork of a process that has used it cannot.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
#: A stage ends itself at its deadline; one that has not after this many seconds more is ended.
GRACE = 5.0


@dataclass(frozen=True)
class Planned:
    name: str
    module: str
    shape: str
    share: float


def planned(shapes: list[str], names: list[str] | None) -> list[Planned]:
    """A stage runs for those of its shapes that were asked for; if for none of them, once for the first asked for."""
    chosen: list[Planned] = []
    for name, module, shape, share in STAGES:
        if name in SECOND and names is None and shapes != ["tiny"]:
            continue
        if names is not None and name not in names:
            continue
        own = [s for other, _, s, _ in STAGES if other == name and s in shapes]
        if shape in shapes:
            chosen.append(Planned(name, module, shape, share))
        elif not own and not any(other.name == name for other in chosen):
            chosen.append(Planned(name, module, shapes[0], share))
    return chosen


_told: list[int] = []


def told_to_end(number: int, _frame: object) -> None:
    """Only noted: what is raised here is lost while a fork is under way."""
    _told.append(number)


def run_apart(work: Callable[[], None], seconds: float) -> tuple[str, str]:
    """Runs it in a forked process, ended after so many seconds. Gives how it ended, and why if not well.

    A fork has what this process imported, and a hang or a crash of the device's driver ends with it. This
    process itself never touches the device, which no fork survives.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reading)
        status = 0
        try:
            work()
        except BaseException:
            os.write(writing, traceback.format_exc()[-4000:].encode())
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    os.close(writing)
    ended = time.monotonic() + seconds
    try:
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if _told:
                sys.exit(143)
            if time.monotonic() > ended:
                _end_group(child)
                os.waitpid(child, 0)
                return "deadline", f"it was ended after {seconds:.0f} s"
            time.sleep(0.02)
        _end_group(child)
        with os.fdopen(os.dup(reading), "rb") as pipe:
            why = pipe.read().decode(errors="replace")
    except BaseException:
        # This process is told to end: first the stage.
        _end_group(child)
        raise
    finally:
        os.close(reading)
    if status == 0:
        return "ok", ""
    return "failed", why or f"it ended with status {os.waitstatus_to_exitcode(status)}"


def _end_group(leader: int) -> None:
    """The process and whatever it started, such as compilers."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def preload() -> str | None:
    """What stages import anyway, once for all of them; says what is missing."""
    try:
        importlib.import_module("transformers.models.qwen3.modeling_qwen3")
        for module in dict.fromkeys(module for _, module, _, _ in STAGES):
            importlib.import_module(module)
    except ImportError:
        return traceback.format_exc()[-2000:]
    finally:
        # What is there now is not looked through again by the stages, whose memory it is until they touch it.
        gc.freeze()
        # The sampler's logprobs of a bench are zeros, of which each step would warn.
        logging.getLogger("hone_worker").setLevel(logging.ERROR)
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deadline", type=float, default=540, help="seconds for all stages together")
    parser.add_argument("--shape", default="4b,0.6b", help="of tiny, 0.6b and 4b; several with commas")
    parser.add_argument("--stages", help="names with commas; all but long and learning unless given")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # a stage's module, in a process of its own
    options = parser.parse_args(arguments)
    shapes = options.shape.split(",")
    if not set(shapes) <= {"tiny", "0.6b", "4b"}:
        parser.error(f"--shape takes tiny, 0.6b and 4b, not {options.shape}")
    stages = planned(shapes, options.stages.split(",") if options.stages else None)
    if options.stages and (unknown := set(options.stages.split(",")) - {s.name for s in stages}):
        parser.error(f"no such stage for this shape: {', '.join(sorted(unknown))}")
    began = time.monotonic()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.jsonl"
    if options.only:
        name = options.only.removeprefix("gpu.")
        logging.getLogger("hone_worker").setLevel(logging.ERROR)
        compute(Planned(name, options.only, shapes[0], 1), options.deadline, out, results)
        return 0
    results.write_text("")
    # From `timeout` or a user: the stage that runs is ended on the way out.
    signal.signal(signal.SIGTERM, told_to_end)
    endings: list[dict[str, Any]] = []
    if missing := preload():
        print(f"some stages will not run:\n{missing}", flush=True)
    fresh = bool(missing) or not forks_reach_the_gpu()
    total = sum(stage.share for stage in stages)
    shared = 0.0
    loaded = time.monotonic()
    left = options.deadline - (loaded - began) - GRACE
    for stage in stages:
        # What a stage leaves of its share is for those after it.
        shared += stage.share
        until = loaded + left * shared / total
        ending = _run_stage(stage, until, out, results, fresh=fresh)
        endings.append(ending)
        print(json.dumps({"stage": stage.name, **ending}), flush=True)
        _write(out, results, endings)
    _print_table(results)
    return 0 if all(ending["outcome"] == "ok" for ending in endings) else 1


def _run_stage(stage: Planned, until: float, out: Path, results: Path, *, fresh: bool) -> dict[str, Any]:
    left = until - time.monotonic()
    ending: dict[str, Any] = {"name": stage.name, "of_shape": stage.shape}
    if left < 1:
        return {**ending, "outcome": "skipped", "why": "no time was left", "seconds": 0.0}
    began = time.monotonic()

    def work() -> None:
        if fresh:
            own = ["--out", str(out), "--deadline", str(left), "--shape", stage.shape, "--only", stage.module]
            os.execv(sys.executable, [sys.executable, __file__, *own])
        compute(stage, left, out, results)

    outcome, why = run_apart(work, left + GRACE)
    return {**ending, "outcome": outcome, "why": why, "seconds": round(time.monotonic() - began, 2)}


def compute(stage: Planned, seconds: float, out: Path, results: Path) -> None:
    from gpu.stage import Stage

    # The soft end is a little earlier, so that what is begun before it can end.
    until = time.monotonic() + 0.85 * seconds
    importlib.import_module(stage.module).run(Stage(stage.name, stage.shape, out, until, results))


def forks_reach_the_gpu() -> bool:
    """Whether a fork of this process can use the GPU; without one there is nothing to reach."""
    import torch

    if not torch.cuda.is_available():
        return True
    outcome, why = run_apart(lambda: torch.zeros(1, device="cuda").add_(1).item(), 60)
    if outcome != "ok":
        print(
            f"each stage starts a process of its own, because a fork does not reach the GPU:\n{why}",
            flush=True,
        )
    return outcome == "ok"


def _rows(results: Path) -> list[dict[str, Any]]:
    # A row that was being written when its stage was ended is no row.
    rows = []
    for line in results.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _write(out: Path, results: Path, endings: list[dict[str, Any]]) -> None:
    fresh = out / "results.json.new"
    fresh.write_text(json.dumps({"stages": endings, "rows": _rows(results)}, indent=1))
    fresh.replace(out / "results.json")


def _print_table(results: Path) -> None:
    from gpu.predictions import table

    lines = [["what", "predicted", "measured", "outcome"], *table(_rows(results))]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    print()
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
