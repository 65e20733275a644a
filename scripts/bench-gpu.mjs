#!/usr/bin/env node
// `pnpm bench:gpu` measures what a GPU makes of the worker (docs/gpu.md). With an NVIDIA GPU in this machine it runs
// there. Without one it prints what to take to a machine that has one, and the command for that machine, which needs
// neither Node nor a network. `--wheels` brings the Python packages to take along into .whl/. Options of
// bench/gpu/all.py (--shape, --stages, --deadline, --out) are passed on.
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fail, root, setUpPython } from "./install.mjs";
import { findVllmPython } from "./vllm/environment.mjs";
import { endAll, onInterrupt, run } from "./processes.mjs";

onInterrupt(() => {
  void endAll().then(() => process.exit(130));
});
/** What a machine with torch, transformers and peft lacks, at the versions that the worker and its tests are pinned to. */
const packages = [
  ...["annotated-types", "anyio", "click", "h11", "idna", "llguidance", "prime-pydantic-config"],
  ...["pydantic", "pydantic-core", "renderers", "starlette", "typing-inspection", "uvicorn"],
  "trl",
];
const mostMegabytes = 64;
const wheels = join(root, ".whl");
const options = process.argv.slice(2).filter((option) => option !== "--wheels" && option !== "--");
const python = await setUpPython({ test: true });

if (process.argv.includes("--wheels")) await bringWheels();
else if (await hasGpu()) process.exit(await measureHere());
else explain();

async function bringWheels() {
  const folder = join(root, "packages", "server", "worker", "requirements");
  const pins = ["worker.txt", "test.txt"].map((file) => readFileSync(join(folder, file), "utf8"));
  const wanted = packages.map((name) => {
    const found = new RegExp(`^${name}==\\S+`, "m").exec(pins.join("\n"));
    return found
      ? found[0]
      : fail(`No requirement pins ${name}. Correct the list of scripts/bench-gpu.mjs.`);
  });
  rmSync(wheels, { recursive: true, force: true });
  mkdirSync(wheels);
  const { status } = await run(python, [
    ...["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"],
    ...["--python-version", "3.12", "--dest", wheels],
    ...["manylinux2014", "manylinux_2_28", "manylinux_2_31"].flatMap((name) => [
      "--platform",
      `${name}_x86_64`,
    ]),
    ...wanted,
  ]);
  if (status !== 0) fail("The packages could not be brought; the lines above say why.");
  const files = readdirSync(wheels);
  const size = files.reduce((sum, file) => sum + statSync(join(wheels, file)).size, 0) / 2 ** 20;
  console.log(`.whl: ${files.length} packages, ${size.toFixed(1)} MiB`);
  if (size > mostMegabytes) fail(`That is more than ${mostMegabytes} MiB.`);
}

async function hasGpu() {
  const asked = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)";
  return (await run(python, ["-c", asked])).status === 0;
}

async function measureHere() {
  const out = options.includes("--out") ? [] : ["--out", join(root, "runs", "gpu")];
  const vllm = findVllmPython("cuda");
  const env = {
    ...process.env,
    ...(vllm && { HONE_VLLM_PYTHON: vllm }),
    PYTHONPATH: join(root, "packages", "server", "worker"),
    PYTORCH_CUDA_ALLOC_CONF: "expandable_segments:True",
    HF_HUB_OFFLINE: "1",
  };
  const program = join(root, "bench", "gpu", "all.py");
  return (await run(python, [program, ...out, ...options], { cwd: root, env })).status;
}

function explain() {
  console.log(`This machine has no NVIDIA GPU that torch can use. For one that has:

1. Here, once: pnpm bench:gpu --wheels
   It brings the Python packages that a machine with torch, transformers and peft lacks, some 15 MiB, into .whl/.
2. Take this folder there, without node_modules and .git.
3. There, in the folder, in a bash (python 3.12; no Node, no network):

   python3 -m pip install -q --no-index --no-deps --target .site .whl/*.whl
   export PYTHONPATH=$PWD/.site:$PWD/packages/server/worker PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
   timeout 560 python3 bench/gpu/all.py --deadline 540 --out \${OUT:-out} ${options.join(" ")}

Try it here on the processor, which measures nothing: ${python} bench/gpu/all.py --shape tiny --out FOLDER
with PYTHONPATH=packages/server/worker. What is predicted, and what each line means: docs/gpu.md.`);
}
