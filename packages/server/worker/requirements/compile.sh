#!/usr/bin/env bash
# Pins worker.in and test.in with the hashes of every platform's files. Needs pip-tools; run it with
# Python 3.11, the oldest that is supported.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() {
  pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
    --no-emit-index-url --no-emit-find-links --no-emit-options --no-header \
    --output-file="$2" "$1"
}
compile requirements/worker.in requirements/worker.txt
compile requirements/test.in requirements/test.txt
# test.txt comes on top of worker.txt and torch: it keeps only what those do not bring.
python3 - <<'PYTHON'
import re
from pathlib import Path

def entries(path):
    return re.split(r"(?m)^(?=[A-Za-z0-9])", Path(path).read_text())

def name(entry):
    return entry.split("==", 1)[0]

known = {name(entry) for entry in entries("requirements/worker.txt")} | {"torch"}
of_cuda = re.compile(r"nvidia-|cuda-|triton$")
kept = [e for e in entries("requirements/test.txt") if name(e) not in known and not of_cuda.match(name(e))]
Path("requirements/test.txt").write_text("".join(kept))
PYTHON
