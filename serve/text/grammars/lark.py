"""Grammars in Lark that users write, held to what can be followed at a bounded cost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ...contract.errors import InvalidRequest
from .schema import read_schema
from .structure import json_rule

# The tokens of llguidance's Lark in which other characters lose their meaning, and the two that cost without bound.
_TOKEN = re.compile(
    r"""(?P<comment>(?:\#|//)[^\n]*)
    | (?P<text>"(?:\\.|[^"\\\n])*")
    | (?P<regex>/(?:\\.|[^/\\])+/[imslux]*)
    | (?P<special><[^<>\s]+>)
    | (?P<options>%llguidance\b)
    | (?P<json>%json\b)
    | (?P<other>%regex\b)
    | (?P<costly>[&~])
    """,
    re.VERBOSE | re.DOTALL,
)
_DECODER = json.JSONDecoder()
# Texts without a choice are usually found to their end in one go. A few rules can make them longer than any memory.
_OPTIONS = '%llguidance {"no_forcing": true}\n'


def read_lark(text: str, path: str) -> str:
    """The grammar as the engine takes it: schemas in it read like all others, options left out.

    Raises InvalidRequest, with the path of the field, where it intersects or negates expressions (`&`, `~`), or holds a
    schema or an object that cannot be read.
    """
    return _OPTIONS + "".join(_pieces(text, path))


def _pieces(text: str, path: str) -> Iterator[str]:
    at = 0
    while match := _TOKEN.search(text, at):
        yield text[at : match.start()]
        at = match.end()
        kind = match.lastgroup
        if kind == "costly":
            raise InvalidRequest(
                f"`{match[0]}` is not supported: what it costs has no bound. Write what is allowed as alternatives.",
                param=path,
            )
        if kind in ("options", "json", "other"):
            value, end = _object(text, at, match[0], path)
            if kind == "json":
                yield json_rule(read_schema(value, path))
            elif kind == "other":
                yield text[match.start() : end]
            at = end
        else:
            yield match[0]
    yield text[at:]


def _object(text: str, at: int, keyword: str, path: str) -> tuple[object, int]:
    """The JSON value that follows, and where it ends."""
    begin = at + len(text[at:]) - len(text[at:].lstrip())
    try:
        return _DECODER.raw_decode(text, begin)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"What follows {keyword} is not JSON.", param=path) from error
