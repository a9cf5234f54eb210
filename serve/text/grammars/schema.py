"""JSON Schemas of requests, checked and rewritten so that a grammar holds all that they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from ...contract.errors import InvalidRequest
from .bounds import check_bounds, join
from .forcing import check_forced
from .keywords import COUNT, ENFORCED, FORMATS, IDLE, NAMED_SCHEMAS, NUMBER, REFUSED, SCHEMA, SCHEMAS, TYPES
from .patterns import check_pattern
from .recursion import check_ends

MAX_PROPERTIES = 5_000
MAX_CHOICES = 5_000
MAX_PATTERNS = 200
MAX_COUNT = 10_000
# The parser of the grammar counts with these.
MAX_MULTIPLE = 10_000

Schema = dict[str, Any] | bool


def read_schema(value: Any, path: str, *, lenient: bool = False) -> Schema:
    """The schema without what says nothing of a value, to be handed to `json_rule`.

    Objects that name their properties and do not say whether they may have others get none: every text of the result is
    valid for `value`, and a small model does not go on inventing names.

    Raises InvalidRequest, with the path of the field under `path` and the way out, for what is not JSON Schema, too
    large, without end, or cannot be enforced; what cannot be enforced is left out where `lenient`. Linear.
    """
    check_bounds(value, path)
    reader = _Reader(lenient)
    schema = reader.schema(value, path, "#")
    reader.check_references()
    check_ends(schema, path)
    check_forced(schema, path)
    return _closed(schema) if reader.can_close else schema


class _Reader:
    """Copies one schema. Depth is bounded before, so it may recurse."""

    def __init__(self, lenient: bool) -> None:
        self.can_close = True
        self._lenient = lenient
        self._places: set[str] = set()
        self._references: list[tuple[str, str]] = []
        self._properties = 0
        self._choices = 0
        self._patterns = 0

    def schema(self, value: Any, path: str, place: str) -> Schema:
        self._places.add(place)
        if isinstance(value, bool):
            return value
        if not isinstance(value, Mapping):
            raise InvalidRequest("A schema must be an object or a boolean.", param=path)
        copy: dict[str, Any] = {}
        for key, item in value.items():
            where = join(path, key)
            if key in REFUSED:
                self._refuse(key, item, where)
            elif key in ENFORCED:
                kept, result = self._keyword(key, item, where, f"{place}/{_escaped(key)}")
                if kept:
                    copy["anyOf" if key == "oneOf" and self._lenient and "anyOf" not in value else key] = result
        self._note_combination(copy)
        return copy

    def check_references(self) -> None:
        """Raise InvalidRequest for a $ref that leads to no schema that was copied."""
        for reference, path in self._references:
            if _normal(reference) not in self._places:
                raise InvalidRequest(
                    f"{reference!r} leads to no schema of this document; put the schema under $defs and refer to it as "
                    "#/$defs/NAME.",
                    param=path,
                )

    def _keyword(self, key: str, item: Any, path: str, place: str) -> tuple[bool, Any]:
        """Whether the keyword stays, and its value."""
        kind = ENFORCED[key]
        if key == "items" and isinstance(item, list | tuple):
            return self._cannot("`items` must be one schema; for a list of them use `prefixItems`", path)
        if kind == SCHEMA:
            return True, self.schema(item, path, place)
        if kind == SCHEMAS:
            return True, self._schemas(key, item, path, place)
        if kind == NAMED_SCHEMAS:
            return True, self._named_schemas(key, item, path, place)
        if kind == COUNT:
            return self._count(item, path)
        if kind == NUMBER:
            return self._number(key, item, path)
        result: tuple[bool, Any] = getattr(self, f"_{kind}")(item, path)
        return result

    def _schemas(self, key: str, item: Any, path: str, place: str) -> list[Schema]:
        if not isinstance(item, list | tuple) or not item:
            raise InvalidRequest(f"`{key}` must be a list of schemas, with at least one.", param=path)
        return [self.schema(part, join(path, index), f"{place}/{index}") for index, part in enumerate(item)]

    def _named_schemas(self, key: str, item: Any, path: str, place: str) -> dict[str, Schema]:
        if not isinstance(item, Mapping):
            raise InvalidRequest(f"`{key}` must be an object of schemas.", param=path)
        self._properties += len(item)
        if self._properties > MAX_PROPERTIES:
            raise InvalidRequest(f"A schema may have {MAX_PROPERTIES} properties.", param=path)
        if key == "patternProperties":
            for pattern in item:
                self._check_pattern(pattern, join(path, pattern))
        return {name: self.schema(part, join(path, name), f"{place}/{_escaped(name)}") for name, part in item.items()}

    def _count(self, item: Any, path: str) -> tuple[bool, Any]:
        if isinstance(item, float) and item.is_integer():
            item = int(item)
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise InvalidRequest("This must be a whole number, not below 0.", param=path)
        if item > MAX_COUNT:
            if path.rpartition(".")[2].startswith("max") and self._lenient:
                return False, None
            raise InvalidRequest(f"This may be at most {MAX_COUNT}; leave it out for no limit.", param=path)
        return True, item

    def _number(self, key: str, item: Any, path: str) -> tuple[bool, Any]:
        if isinstance(item, bool) or not isinstance(item, int | float):
            return self._cannot("this must be a number", path)
        if key == "multipleOf" and not 1e-6 <= item <= MAX_MULTIPLE:
            return self._cannot(f"`multipleOf` must lie between 0.000001 and {MAX_MULTIPLE}", path)
        return True, item

    def _type(self, item: Any, path: str) -> tuple[bool, Any]:
        types = item if isinstance(item, list | tuple) else [item]
        if not types or not all(isinstance(name, str) and name in TYPES for name in types):
            raise InvalidRequest(f"`type` must be one of {', '.join(sorted(TYPES))}, or a list of them.", param=path)
        return True, item

    def _enum(self, item: Any, path: str) -> tuple[bool, Any]:
        if not isinstance(item, list | tuple) or not item:
            raise InvalidRequest("`enum` must be a list with at least one value.", param=path)
        self._choices += len(item)
        if self._choices > MAX_CHOICES:
            raise InvalidRequest(f"A schema may have {MAX_CHOICES} values of enums.", param=path)
        return True, list(item)

    def _const(self, item: Any, path: str) -> tuple[bool, Any]:
        return True, item

    def _required(self, item: Any, path: str) -> tuple[bool, Any]:
        if not isinstance(item, list | tuple) or not all(isinstance(name, str) for name in item):
            raise InvalidRequest("`required` must be a list of names.", param=path)
        return True, list(dict.fromkeys(item))

    def _reference(self, item: Any, path: str) -> tuple[bool, Any]:
        if not isinstance(item, str) or not (item == "#" or item.startswith("#/")):
            raise InvalidRequest(
                "`$ref` must point into this document (#/$defs/NAME); nothing is fetched from elsewhere.", param=path
            )
        self._references.append((item, path))
        return True, item

    def _pattern(self, item: Any, path: str) -> tuple[bool, Any]:
        try:
            self._check_pattern(item, path)
        except InvalidRequest:
            if not self._lenient or not isinstance(item, str):
                raise
            return False, None
        return True, item

    def _check_pattern(self, item: Any, path: str) -> None:
        self._patterns += 1
        if self._patterns > MAX_PATTERNS:
            raise InvalidRequest(f"A schema may have {MAX_PATTERNS} patterns.", param=path)
        check_pattern(item, path)

    def _format(self, item: Any, path: str) -> tuple[bool, Any]:
        if not isinstance(item, str):
            raise InvalidRequest("`format` must be a string.", param=path)
        if item in FORMATS:
            return True, item
        return self._cannot(f"the format {item!r} is none of {', '.join(sorted(FORMATS))}; use `pattern`", path)

    def _refuse(self, key: str, item: Any, path: str) -> None:
        if not any(item == idle and type(item) is type(idle) for idle in IDLE.get(key, ())):
            self._cannot(f"`{key}` cannot be enforced; {REFUSED[key]}", path)

    def _cannot(self, why: str, path: str) -> tuple[bool, Any]:
        if self._lenient:
            return False, None
        raise InvalidRequest(f"{why[0].upper()}{why[1:]}.", param=path)

    def _note_combination(self, copy: dict[str, Any]) -> None:
        """Objects whose properties are spread over several schemas must stay open."""
        others = copy.keys() - {"$defs", "definitions"}
        if "allOf" in copy or (others & {"anyOf", "oneOf", "$ref"} and len(others) > 1):
            self.can_close = False


def _closed(schema: Schema) -> Schema:
    """The schema, in which objects with named properties have no others unless they say so."""
    if isinstance(schema, bool):
        return schema
    copy: dict[str, Any] = {}
    for key, item in schema.items():
        kind = ENFORCED[key]
        if kind == SCHEMA:
            copy[key] = _closed(item)
        elif kind == SCHEMAS:
            copy[key] = [_closed(part) for part in item]
        elif kind == NAMED_SCHEMAS:
            copy[key] = {name: _closed(part) for name, part in item.items()}
        else:
            copy[key] = item
    properties = schema.get("properties")
    says = schema.keys() & {"additionalProperties", "patternProperties", "minProperties"}
    if properties and not says and properties.keys() >= set(schema.get("required", ())):
        copy["additionalProperties"] = False
    return copy


def _escaped(name: str) -> str:
    """A name as a step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _normal(reference: str) -> str:
    """A reference in the spelling in which places are noted."""
    return unquote(reference)
