"""Whether a JSON value keeps to a JSON Schema, within bounds: schemas come from data files and may be made to hurt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import regex

MAX_STEPS = 50_000
MAX_NESTING = 80
MAX_PATTERN = 2_000
MAX_MATCHED = 1 << 16
# A pattern that needs longer than this for one text backtracks without end.
_SECONDS = 0.1
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


class TooCostly(ValueError):
    """The schema cannot be followed within the bounds; says why."""


def breaches(value: Any, schema: Any) -> list[tuple[str, str]]:
    """Where `value` breaks `schema` (2020-12, without `format` and remote references): paths and what is wrong.

    Raises TooCostly where following the schema would take too long, and for patterns that are no regular expressions.
    """
    return list(_Walk(schema).breaches(value, schema, "", 0))


class _Walk:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0

    def breaches(self, value: Any, schema: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
        self._count(1)
        if depth > MAX_NESTING:
            raise TooCostly(f"it is nested, or refers to itself, more than {MAX_NESTING} levels deep")
        if schema is False:
            yield path, "nothing is allowed here"
        if not isinstance(schema, Mapping):
            return
        if isinstance(reference := schema.get("$ref"), str):
            yield from self.breaches(value, self._resolved(reference), path, depth + 1)
        yield from self._general(value, schema, path)
        yield from self._combined(value, schema, path, depth)
        if isinstance(value, dict):
            yield from self._object(value, schema, path, depth)
        elif isinstance(value, list):
            yield from self._array(value, schema, path, depth)
        elif isinstance(value, str):
            yield from self._string(value, schema, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from _number(value, schema, path)

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise TooCostly(f"following it takes more than {MAX_STEPS} steps")

    def _holds(self, value: Any, schema: Any, depth: int) -> bool:
        return next(self.breaches(value, schema, "", depth + 1), None) is None

    def _resolved(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise TooCostly(f"{reference[:80]!r} refers to something outside of it")
        found = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise TooCostly(f"{reference[:80]!r} refers to nothing")
            found = found[name]
        return found

    def _general(self, value: Any, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
        kinds = schema.get("type")
        names = [kinds] if isinstance(kinds, str) else _list(kinds)
        if names and not any(_is_kind(value, name) for name in names):
            yield path, f"this must be of type {' or '.join(map(str, names))}"
        allowed = schema.get("enum")
        if isinstance(allowed, list):
            self._count(len(allowed))
            if not any(same(value, item) for item in allowed):
                yield path, f"this must be one of {_short(allowed)}"
        if "const" in schema and not same(value, schema["const"]):
            yield path, f"this must be {_short(schema['const'])}"

    def _combined(self, value: Any, schema: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, str]]:
        for part in _list(schema.get("allOf")):
            yield from self.breaches(value, part, path, depth + 1)
        if ways := _list(schema.get("anyOf")):
            if len(ways) == 1:
                yield from self.breaches(value, ways[0], path, depth + 1)
            elif not any(self._holds(value, way, depth) for way in ways):
                yield path, "this fits none of the ways of anyOf"
        if ways := _list(schema.get("oneOf")):
            fitting = sum(self._holds(value, way, depth) for way in ways)
            if fitting != 1:
                yield path, f"this fits {fitting} of the ways of oneOf, not one"
        if "not" in schema and self._holds(value, schema["not"], depth):
            yield path, "this is what `not` excludes"
        if "if" in schema:
            branch = "then" if self._holds(value, schema["if"], depth) else "else"
            yield from self.breaches(value, schema.get(branch, True), path, depth + 1)

    def _object(
        self, value: Mapping[str, Any], schema: Mapping[str, Any], path: str, depth: int
    ) -> Iterator[tuple[str, str]]:
        for name in _list(schema.get("required")):
            if name not in value:
                yield path, f"{name!r} is missing"
        needs = schema.get("dependentRequired")
        for name, others in needs.items() if isinstance(needs, Mapping) else ():
            for other in _list(others) if name in value else ():
                if other not in value:
                    yield path, f"{name!r} needs {other!r}, which is missing"
        yield from _size(len(value), schema, "Properties", "fields", path)
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        patterns = schema.get("patternProperties")
        patterns = patterns if isinstance(patterns, Mapping) else {}
        for name, item in value.items():
            here = f"{path}.{name}" if path else name
            if "propertyNames" in schema:
                yield from self.breaches(name, schema["propertyNames"], here, depth + 1)
            matching = [patterns[pattern] for pattern in patterns if self._matches(pattern, name)]
            if name in properties:
                matching.append(properties[name])
            if not matching:
                if schema.get("additionalProperties") is False:
                    yield here, "there is no such field"
                    continue
                matching = [schema.get("additionalProperties", True)]
            for part in matching:
                yield from self.breaches(item, part, here, depth + 1)

    def _array(
        self, value: Sequence[Any], schema: Mapping[str, Any], path: str, depth: int
    ) -> Iterator[tuple[str, str]]:
        yield from _size(len(value), schema, "Items", "items", path)
        firsts = _list(schema.get("prefixItems"))
        for index, item in enumerate(value):
            part = firsts[index] if index < len(firsts) else schema.get("items", True)
            yield from self.breaches(item, part, f"{path}[{index}]", depth + 1)
        if "contains" in schema and not any(self._holds(item, schema["contains"], depth) for item in value):
            yield path, "no item is as `contains` says"
        if schema.get("uniqueItems") is True:
            self._count(len(value) ** 2 // 2)
            if any(same(a, b) for index, a in enumerate(value) for b in value[:index]):
                yield path, "an item stands there twice"

    def _string(self, value: str, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
        yield from _size(len(value), schema, "Length", "characters", path)
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not self._matches(pattern, value):
            yield path, f"this does not match {_short(pattern)}"

    def _matches(self, pattern: str, text: str) -> bool:
        self._count(10)
        if len(text) > MAX_MATCHED:
            raise TooCostly(f"a text for a pattern has more than {MAX_MATCHED} characters")
        try:
            return _compiled(pattern).search(text, timeout=_SECONDS) is not None
        except TimeoutError as error:
            raise TooCostly(f"the pattern {_short(pattern)} takes too long") from error


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> regex.Pattern[str]:
    if len(pattern) > MAX_PATTERN:
        raise TooCostly(f"a pattern has more than {MAX_PATTERN} characters")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise TooCostly(f"{_short(pattern)} is no regular expression: {error}") from error


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, and 1.0 is."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _is_kind(value: Any, name: Any) -> bool:
    if not isinstance(name, str):
        return True
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, (object,)))


def _number(value: float, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for keyword, told in (("minimum", "at least"), ("exclusiveMinimum", "above")):
        limit = _limit(schema, keyword)
        if limit is not None and (value < limit or (value == limit and told == "above")):
            yield path, f"this must be {told} {limit}"
    for keyword, told in (("maximum", "at most"), ("exclusiveMaximum", "below")):
        limit = _limit(schema, keyword)
        if limit is not None and (value > limit or (value == limit and told == "below")):
            yield path, f"this must be {told} {limit}"
    step = schema.get("multipleOf")
    if isinstance(step, int) and isinstance(value, int) and step > 0 and value % step:
        yield path, f"this must be a multiple of {step}"


def _limit(schema: Mapping[str, Any], keyword: str) -> float | None:
    limit = schema.get(keyword)
    return limit if isinstance(limit, int | float) and not isinstance(limit, bool) else None


def _size(size: int, schema: Mapping[str, Any], suffix: str, noun: str, path: str) -> Iterator[tuple[str, str]]:
    least, most = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
    if isinstance(least, int) and size < least:
        yield path, f"this has {size} {noun}, and needs {least}"
    if isinstance(most, int) and size > most:
        yield path, f"this has {size} {noun}, and may have {most}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
