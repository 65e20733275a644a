"""The rewards of the two tasks, for TRL: what examples/inbox and moves.ts compute, restated. A test compares them."""

from __future__ import annotations

import json
import sys
from typing import Any

KEYS = ("name", "amount", "due")
MOVES = ("up", "down", "left", "right")
# What JavaScript's trim() removes.
SPACE = "\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def reward(answer: str, key: dict[str, Any]) -> float:
    return _bill(answer, key["bill"]) if key["kind"] == "bill" else _move(answer, key["values"])


def _bill(answer: str, bill: dict[str, Any]) -> float:
    read = _object(answer)
    if read is None:
        return 0.0
    right = sum(name in read and _equal(read[name], bill[name]) for name in KEYS)
    return (1 + (set(read) == set(KEYS)) + right) / 5


def _equal(value: object, wanted: object) -> bool:
    """As `===` compares: a number is no boolean, and all numbers are doubles."""
    if isinstance(wanted, str):
        return isinstance(value, str) and value == wanted
    return isinstance(value, float) and value == float(wanted)  # type: ignore[arg-type]


def _object(answer: str) -> dict[str, Any] | None:
    try:
        # Doubles throughout, and none of the constants that Python alone accepts.
        value = json.loads(answer, parse_int=float, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _move(answer: str, values: dict[str, float]) -> float:
    word = answer.strip(SPACE).lower()
    return float(values.get(word, 0.0)) if word in MOVES else 0.0


if __name__ == "__main__":
    # For the test: a list of [answer, key] on standard input, the rewards on standard output.
    print(json.dumps([reward(answer, key) for answer, key in json.load(sys.stdin)]))
