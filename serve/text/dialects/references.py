"""Where the references of a schema lead, and which of them lead back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ..grammars.bounds import MAX_CHARACTERS, MAX_VALUES
from ..grammars.keywords import ENFORCED, NAMED_SCHEMAS, SCHEMA, SCHEMAS
from ..grammars.recursion import walk
from ..grammars.schema import Schema

DEFINITIONS = frozenset({"$defs", "definitions"})
# Characters of a reference to a copy.
_REFERENCE = 24


class References:
    """What the references of a schema lead to.

    `order` has each such place, behind all those that it needs except by a reference in `back`. `deep` are the places
    from which one of these can be reached.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.schemas: dict[str, Schema] = dict(walk(root, "#"))
        self.order: list[str] = []
        self.back: set[tuple[str, str]] = set()
        self.deep: set[str] = set()
        self._needs: dict[str, list[str]] = {}
        self._closed: set[str] = set()
        stack = [self._open("#")]
        while stack:
            place, rest = stack[-1]
            target = next(rest, None)
            if target is None:
                stack.pop()
                self._close(place)
            elif target not in self._needs:
                stack.append(self._open(target))
            elif target not in self._closed:
                self.back.add((place, target))

    def most_levels(self) -> int:
        """How many levels of copies fit into the bounds of a request."""
        once, again = [0, 0], [1, 1]
        for place in self.order:
            sizes = again if place in self.deep else once
            for index, size in enumerate(_size(self.schemas[place])):
                sizes[index] += size
        return min((MAX_CHARACTERS - once[0]) // again[0], (MAX_VALUES - once[1]) // again[1])

    def goes_deeper(self, schema: Schema) -> bool:
        """Whether what the schema is made of leads to something that leads back."""
        return any(target in self.deep for target in references_of(schema))

    def _open(self, place: str) -> tuple[str, Iterator[str]]:
        self._needs[place] = list(dict.fromkeys(references_of(self.schemas[place])))
        return place, iter(self._needs[place])

    def _close(self, place: str) -> None:
        self._closed.add(place)
        self.order.append(place)
        if any((place, target) in self.back or target in self.deep for target in self._needs[place]):
            self.deep.add(place)


def references_of(schema: Schema) -> Iterator[str]:
    """Where the references lead that stand in what values of the schema are made of."""
    if isinstance(schema, bool):
        return
    for key, item in schema.items():
        kind = ENFORCED[key]
        if key == "$ref":
            yield unquote(item)
        elif kind == SCHEMA:
            yield from references_of(item)
        elif kind == SCHEMAS:
            for part in item:
                yield from references_of(part)
        elif kind == NAMED_SCHEMAS and key not in DEFINITIONS:
            for part in item.values():
                yield from references_of(part)


def _size(schema: Schema) -> tuple[int, int]:
    """Bounds on the characters and the values of a copy."""
    kept = schema if isinstance(schema, bool) else {key: schema[key] for key in schema.keys() - DEFINITIONS}
    text = json.dumps(kept, ensure_ascii=False)
    return len(text) + _REFERENCE * text.count('"$ref"'), 1 + sum(map(text.count, ",[{"))
