"""Schemas that would take everything end by themselves, and nobody waits for them."""

import asyncio
from typing import Any

import pytest

from hone_worker.process.errors import HoneWorkerError
from hone_worker.schema import schema_process
from hone_worker.schema.schema_process import SchemaChecks


def endless(name: str) -> dict[str, Any]:
    """2.6 kB, of which an automaton would be made without end."""
    return {"allOf": [{"type": "string", "pattern": f"a.*{name}X{i}"} for i in range(60)]}


async def verdict(checks: SchemaChecks, schema: dict[str, Any]) -> Any:
    try:
        return await checks.check(schema)
    except HoneWorkerError as error:
        return error


def test_an_endless_schema_is_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both() -> None:
        checks = SchemaChecks()
        first = await verdict(checks, endless("q"))
        assert first.status == 400 and first.code == "unsupported_schema"
        assert first.param == "response_format.json_schema.schema" and "Use fewer patterns" in first.message
        # Known from now on: no process is asked.
        monkeypatch.setattr(schema_process._Lane, "answer", None)
        assert (await verdict(checks, endless("q"))).message == first.message

    asyncio.run(asyncio.wait_for(both(), 60))


def test_others_are_answered_before_the_endless_ones() -> None:
    async def all_of_them() -> None:
        checks = SchemaChecks()
        order: list[str] = []

        async def one(name: str, schema: dict[str, Any]) -> None:
            await verdict(checks, schema)
            order.append(name)

        tasks = [one(f"bad{i}", endless(f"z{i}")) for i in range(4)]
        good = [one(f"good{i}", {"type": "string", "maxLength": i}) for i in range(5)]
        await asyncio.gather(*tasks, *good)
        assert set(order[-2:]) <= {f"bad{i}" for i in range(4)}
        assert order.index("good4") < 7

    asyncio.run(asyncio.wait_for(all_of_them(), 120))


def test_many_ask_with_one_schema() -> None:
    async def many() -> None:
        checks = SchemaChecks()
        answers = await asyncio.gather(*[checks.check({"type": "string"}) for _ in range(200)])
        assert answers == [{"type": "string"}] * 200
        # One who leaves takes nothing from the rest.
        leaving = asyncio.create_task(checks.check({"type": "integer"}))
        staying = asyncio.create_task(checks.check({"type": "integer"}))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == {"type": "integer"}

    asyncio.run(many())


def test_too_many_at_once_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone_worker.schema.schema_process.MOST_WAITING", 2)

    async def flood() -> None:
        checks = SchemaChecks()
        asked = [asyncio.create_task(verdict(checks, endless(f"f{i}"))) for i in range(2)]
        await asyncio.sleep(0)
        late = await verdict(checks, {"type": "boolean"})
        assert isinstance(late, HoneWorkerError) and late.status == 503
        await asyncio.gather(*asked)
        assert await verdict(checks, {"type": "boolean"}) == {"type": "boolean"}

    asyncio.run(asyncio.wait_for(flood(), 120))


def test_what_a_check_says_comes_through() -> None:
    with pytest.raises(HoneWorkerError, match="nonsense") as failure:
        asyncio.run(SchemaChecks().check({"type": "string", "format": "nonsense"}))
    assert failure.value.code == "unsupported_schema"
