"""bitsandbytes, which packs weights and moments into 4 and 8 bits. Not every environment has it, and few servers need it."""

from __future__ import annotations

from typing import Any

from hone_worker.process.errors import HoneWorkerError


def require_bitsandbytes(wanted: str, param: str) -> Any:
    """The module. It is imported by those who ask for what it does: it takes seconds."""
    try:
        import bitsandbytes
    except ImportError as cause:
        raise HoneWorkerError(
            f"{wanted} needs the Python package bitsandbytes, which is not installed here. Run `npx @hone/server setup "
            "--bitsandbytes` (in a clone: `npm run hone -- setup --bitsandbytes`), then start again.",
            code="bad_option",
            param=param,
        ) from cause
    return bitsandbytes
