"""Brings a base from the hub into its local cache, or finds it there, and prints its folder.

python -m hone_worker.tools.hub_base --id OWNER/NAME [--local]
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from huggingface_hub import snapshot_download

#: Weights as safetensors and nothing that runs.
FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
]
NEEDED = FILES[:5]
#: Short, so that an unreachable hub is known soon.
TIMEOUT_SECONDS = 10


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="hone_worker.tools.hub_base", description=__doc__)
    parser.add_argument("--id", required=True)
    parser.add_argument("--local", action="store_true", help="only look into the cache")
    options = parser.parse_args(argv)
    try:
        folder = snapshot_download(
            options.id,
            allow_patterns=FILES,
            etag_timeout=TIMEOUT_SECONDS,
            local_files_only=options.local,
        )
    except Exception as error:
        # The library has a dozen kinds of errors, its own and its HTTP client's. All mean that the base is not there.
        print(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        sys.exit(1)
    missing = [name for name in NEEDED if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        print(f"{folder} has no {', '.join(missing)}", file=sys.stderr)
        sys.exit(1)
    print(folder)


if __name__ == "__main__":
    main()
