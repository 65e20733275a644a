"""Rewrites a JSON Schema in words that engines know, with the same meaning.

What libraries write (OpenAPI's `nullable`, zod's formats and records, `oneOf` for what cannot overlap) is legal or
common, and some engines refuse it or leave it out in silence.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

Schema = Any
#: Where schemas stand in a schema. Elsewhere (`const`, `enum`, names of properties) the same words are data.
ONE = (
    "items",
    "additionalItems",
    "additionalProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
)
LIST = ("items", "prefixItems", "anyOf", "oneOf", "allOf")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
#: zod names its checks in `format`, and says what they are in `pattern`.
ZOD_FORMATS = frozenset(
    (
        *("starts_with", "ends_with", "includes", "lowercase", "uppercase", "regex", "template_literal"),
        *("emoji", "base64", "base64url", "nanoid", "cuid", "cuid2", "ulid", "xid", "ksuid", "guid"),
        *("cidrv4", "cidrv6", "mac", "e164", "hex"),
        *(
            f"{name}_{code}"
            for name in ("md5", "sha1", "sha256", "sha384", "sha512")
            for code in ("hex", "base64", "base64url")
        ),
    )
)
DEEPEST_REF = 20


class UnclearSchema(ValueError):
    """A keyword that can be read in two ways, or whose value means nothing."""


def plain_schema(schema: Schema) -> Schema:
    return _plain(schema, schema)


def _plain(schema: Schema, root: Schema) -> Schema:
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    for key in ONE:
        if isinstance(made.get(key), dict):
            made[key] = _plain(made[key], root)
    for key in LIST:
        if isinstance(made.get(key), list):
            made[key] = [_plain(one, root) for one in made[key]]
    for key in NAMED:
        if isinstance(made.get(key), dict):
            made[key] = {name: _plain(one, root) for name, one in made[key].items()}
    _drop_format(made)
    _name_properties(made)
    _choose(made, schema, root)
    return _nullable(made)


def _drop_format(made: dict[str, Any]) -> None:
    if made.get("format") not in ZOD_FORMATS:
        return
    parts = [made, *(part for part in made.get("allOf") or [] if isinstance(part, dict))]
    if any(isinstance(part.get("pattern"), str) for part in parts):
        del made["format"]


def _name_properties(made: dict[str, Any]) -> None:
    """`propertyNames`, written as the properties that it allows."""
    names = made.get("propertyNames")
    if names is True or names == {} or names == {"type": "string"}:
        del made["propertyNames"]
        return
    if not isinstance(names, dict) or "properties" in made or "patternProperties" in made:
        return
    value, said = made.get("additionalProperties", True), set(names) - {"type", "format"}
    if said == {"enum"} and all(isinstance(name, str) for name in names["enum"]):
        made["properties"] = {name: value for name in names["enum"]}
    elif said == {"const"} and isinstance(names["const"], str):
        made["properties"] = {names["const"]: value}
    elif said == {"pattern"} and names.get("format") in (None, *ZOD_FORMATS, "uuid", "email"):
        made["patternProperties"] = {names["pattern"]: value}
    else:
        return
    del made["propertyNames"]
    made["additionalProperties"] = False


def _choose(made: dict[str, Any], schema: dict[str, Any], root: Schema) -> None:
    """`oneOf` as `anyOf`: if alternatives exclude each other, one holds wherever any holds."""
    branches = schema.get("oneOf")
    if not isinstance(branches, list) or len(branches) > 100:
        return
    pairs = ((a, b) for i, a in enumerate(branches) for b in branches[i + 1 :])
    if not all(_disjoint(a, b, root, 0) for a, b in pairs):
        return
    any_of = {"anyOf": made.pop("oneOf")}
    if "anyOf" in made:
        made["allOf"] = [*made.get("allOf", []), any_of]
    else:
        made.update(any_of)


def _nullable(made: dict[str, Any]) -> Schema:
    """OpenAPI 3.0's `nullable`, which JSON Schema does not know, as one more type."""
    if "nullable" not in made:
        return made
    nullable = made.pop("nullable")
    if not isinstance(nullable, bool):
        raise UnclearSchema(f"nullable is {nullable!r}, and not true or false")
    if not nullable:
        return made
    if set(made) & {"$ref", "anyOf", "oneOf", "allOf", "not", "if"}:
        kept = {key: made.pop(key) for key in ("$schema", "$id", "$defs", "definitions") if key in made}
        return {**kept, "anyOf": [made, {"type": "null"}]}
    if "type" in made:
        types = made["type"] if isinstance(made["type"], list) else [made["type"]]
        made["type"] = types if "null" in types else [*types, "null"]
    if "const" in made:
        made["enum"] = [made.pop("const")]
    if isinstance(made.get("enum"), list) and None not in made["enum"]:
        made["enum"] = [*made["enum"], None]
    return made


def _disjoint(a: Schema, b: Schema, root: Schema, depth: int) -> bool:
    """Whether no value can match both. False if that is not certain."""
    if a is False or b is False:
        return True
    if not isinstance(a, dict) or not isinstance(b, dict) or depth > DEEPEST_REF:
        return False
    for one, other in ((a, b), (b, a)):
        if "$ref" in one:
            target = _target(one["$ref"], root)
            if target is not None and _disjoint(target, other, root, depth + 1):
                return True
        parts = one.get("allOf")
        if isinstance(parts, list) and any(_disjoint(part, other, root, depth + 1) for part in parts):
            return True
        for choices in (one.get("anyOf"), one.get("oneOf")):
            if isinstance(choices, list) and all(_disjoint(c, other, root, depth + 1) for c in choices):
                return True
    values, others = _values(a), _values(b)
    if values is not None and others is not None:
        return values.isdisjoint(others)
    kinds, other_kinds = _kinds(a, values), _kinds(b, others)
    if kinds is None or other_kinds is None:
        return False
    both = kinds & other_kinds
    return both == {"object"} and _apart(a, b, root, depth) if both else True


def _apart(a: dict[str, Any], b: dict[str, Any], root: Schema, depth: int) -> bool:
    """The same for objects: they differ in a property that both must have, or that one must have and the other may not."""
    for one, other in ((a, b), (b, a)):
        properties = other.get("properties")
        known = properties if isinstance(properties, dict) else {}
        for name in one.get("required") or []:
            own = (one.get("properties") or {}).get(name)
            if name in known:
                if name in (other.get("required") or []) and _disjoint(own, known[name], root, depth + 1):
                    return True
            elif other.get("additionalProperties") is False and "patternProperties" not in other:
                return True
    return False


def _values(schema: dict[str, Any]) -> frozenset[tuple[str, Any]] | None:
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list) or any(isinstance(value, (list, dict)) for value in listed):
        return None
    return frozenset((_kind(value), value) for value in listed)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _kinds(schema: dict[str, Any], values: frozenset[tuple[str, Any]] | None) -> set[str] | None:
    if values is not None:
        return {kind for kind, _ in values}
    types = schema.get("type")
    listed = types if isinstance(types, list) else [types]
    names = [one for one in listed if isinstance(one, str)]
    if not names or len(names) < len(listed):
        return None
    kinds = {"number" if one == "integer" else one for one in names}
    return kinds | {"null"} if schema.get("nullable") is True else kinds


def _target(ref: Any, root: Schema) -> Schema | None:
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    found = root
    for part in unquote(ref[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return None
    return found
