"""A schema in plain words means the same: what it lets be, what it does not, and what stays data."""

import json
from typing import Any

import pytest
from conftest import tiny_tokenizer
from llguidance import LLMatcher, hf

from hone_worker.process.errors import HoneWorkerError
from hone_worker.schema.json_schema import check_schema, source_of
from hone_worker.schema.plain_schema import plain_schema

TOKENIZER = tiny_tokenizer()
LL = hf.from_tokenizer(TOKENIZER, len(TOKENIZER))


def takes(schema: dict[str, Any], value: Any) -> bool:
    matcher = LLMatcher(LL, source_of(check_schema(schema)), log_level=0)
    assert not matcher.get_error()
    ids = TOKENIZER.encode(json.dumps(value), add_special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


CAT = {
    "type": "object",
    "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}},
    "required": ["kind", "lives"],
    "additionalProperties": False,
}
DOG = {
    "type": "object",
    "properties": {"kind": {"enum": ["dog", "wolf"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
ANIMALS = {"$defs": {"cat": CAT, "dog": DOG, "text": {"type": "string"}, "again": {"$ref": "#/$defs/cat"}}}


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        # zod's checks on strings, as z.toJSONSchema writes them.
        ({"type": "string", "format": "starts_with", "pattern": "^abc.*"}, ["abc", "abcd"], ["ab", "xabc"]),
        ({"type": "string", "format": "ends_with", "pattern": ".*c$"}, ["c", "abc"], ["cd"]),
        ({"type": "string", "format": "includes", "pattern": "m"}, ["ama", "m"], ["a"]),
        (
            {
                "type": "string",
                "format": "ends_with",
                "allOf": [{"pattern": "^a.*"}, {"pattern": ".*b$"}],
            },
            ["ab"],
            ["a", "b"],
        ),
        (
            {**ANIMALS, "oneOf": [{"$ref": "#/$defs/again"}, {"$ref": "#/$defs/dog"}]},
            [{"kind": "cat", "lives": 9}, {"kind": "wolf"}],
            [{"kind": "cat"}, {"kind": "dog", "lives": 9}],
        ),
        (
            {**ANIMALS, "oneOf": [{"$ref": "#/$defs/text"}, {"$ref": "#/$defs/cat"}, {"type": "null"}]},
            ["x", None, {"kind": "cat", "lives": 1}],
            [3],
        ),
        ({"oneOf": [{"enum": ["a", 1]}, {"enum": [True, "b"]}]}, ["a", 1, True, "b"], ["c"]),
        ({"type": "string", "nullable": True}, ["x", None], [1]),
        ({"type": "string", "nullable": False}, ["x"], [None]),
        ({"type": ["string", "integer"], "nullable": True, "enum": ["a", 1]}, ["a", 1, None], ["b"]),
        ({"$defs": ANIMALS["$defs"], "$ref": "#/$defs/dog", "nullable": True}, [{"kind": "dog"}, None], [1]),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True}, ["x", 1, None], [True]),
        (
            {"type": "array", "items": {"type": "integer", "nullable": True}},
            [[1], [1, None]],
            [["a"], None],
        ),
        (
            {
                "type": "object",
                "propertyNames": {"type": "string", "enum": ["a", "b"]},
                "additionalProperties": {"type": "integer"},
            },
            [{}, {"a": 1}, {"a": 1, "b": 2}],
            [{"c": 1}, {"a": "x"}],
        ),
        (
            {
                "type": "object",
                "propertyNames": {"type": "string", "pattern": "^x"},
                "additionalProperties": {"type": "integer"},
            },
            [{"x1": 1}],
            [{"y": 1}],
        ),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_means_the_same(schema: dict[str, Any], yes: list[Any], no: list[Any]) -> None:
    assert [takes(schema, value) for value in yes] == [True] * len(yes)
    assert [takes(schema, value) for value in no] == [False] * len(no)
    plain = plain_schema(schema)
    assert "nullable" not in json.dumps(plain) and plain_schema(plain) == plain


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        (
            {
                "$defs": {"a": {"type": "object"}, "b": {"type": "object"}},
                "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
            },
            "oneOf",
        ),
        # A property that need not be there tells nobody apart.
        (
            {
                "oneOf": [
                    {"type": "object", "properties": {"k": {"const": "a"}}},
                    {"type": "object", "properties": {"k": {"const": "b"}}},
                ]
            },
            "oneOf",
        ),
        ({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["b"]}]}, "oneOf"),
        ({"oneOf": [{"type": "string", "nullable": True}, {"type": "null"}]}, "oneOf"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "oneOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}, ""),
        ({"type": "string", "nullable": "yes"}, "nullable"),
        # Not zod's, or nothing says what it means.
        ({"type": "string", "format": "credit-card", "pattern": "^1"}, "credit-card"),
        ({"type": "string", "format": "starts_with"}, "starts_with"),
        ({"type": "object", "propertyNames": {"minLength": 2}}, "propertyNames"),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_is_not_plain_is_refused_by_name(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(HoneWorkerError) as failure:
        check_schema(schema)
    assert failure.value.code == "unsupported_schema" and says in failure.value.message


def test_data_is_no_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "nullable": {"type": "boolean"},
            "oneOf": {"const": {"nullable": True, "format": "starts_with", "pattern": "a"}},
        },
        "default": {"nullable": True},
    }
    assert plain_schema(schema) == schema
