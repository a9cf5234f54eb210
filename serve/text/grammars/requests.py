"""The forms in which requests ask for structured text, made into one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ...contract.errors import InvalidRequest, Unsupported
from .bounds import MAX_CHARACTERS, check_bounds
from .lark import read_lark
from .patterns import check_pattern
from .schema import MAX_CHOICES, read_schema
from .structure import Structure, json_rule, quoted

MAX_GRAMMAR = 1 << 16
_LARK_START = re.compile(r"[ \t]*(?:%llguidance\b|start[ \t]*:)")
_KINDS = ("json", "json_object", "regex", "choice", "grammar")


def read_response_format(value: Any, path: str = "response_format") -> Structure | None:
    """What OpenAI's `response_format` (or Responses' `text.format`) asks for; None for text of any kind.

    A schema with `strict` false is followed as far as it can be, any other is held or refused. Raises InvalidRequest
    with the path of the field.
    """
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Structure(json_rule({"type": "object"}))
    if kind != "json_schema":
        raise InvalidRequest("The type must be text, json_object or json_schema.", param=f"{path}.type")
    if isinstance(value.get("json_schema"), Mapping):
        value, path = value["json_schema"], f"{path}.json_schema"
    if "schema" not in value:
        raise InvalidRequest("A json_schema needs a `schema`.", param=f"{path}.schema")
    lenient = value.get("strict") is False
    return Structure(json_rule(read_schema(value["schema"], f"{path}.schema", lenient=lenient)))


def read_structured_outputs(value: Any, path: str = "structured_outputs") -> Structure | None:
    """What vLLM's `structured_outputs` asks for: one of json, json_object, regex, choice and grammar; None for nothing.

    `json` is a schema, or one as JSON text; `grammar` is Lark in llguidance's dialect or GBNF. Raises InvalidRequest
    with the path of the field.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidRequest("This must be an object.", param=path)
    asked = {name: item for name, item in value.items() if item is not None and item is not False}
    for name in asked:
        if name not in _KINDS:
            raise Unsupported(f"{name!r} is not supported; these are: {', '.join(_KINDS)}.", param=f"{path}.{name}")
    if not asked:
        return None
    if len(asked) > 1:
        raise InvalidRequest(f"Only one of {', '.join(sorted(asked))} can be asked for.", param=path)
    ((name, item),) = asked.items()
    return _READERS[name](item, f"{path}.{name}")


def _json(value: Any, path: str) -> Structure:
    if isinstance(value, str):
        if len(value) > MAX_CHARACTERS:
            raise InvalidRequest(f"A schema may have {MAX_CHARACTERS} characters.", param=path)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("The schema is not JSON.", param=path) from error
    return Structure(json_rule(read_schema(value, path)))


def _json_object(value: Any, path: str) -> Structure:
    if value is not True:
        raise InvalidRequest("This must be true or false.", param=path)
    return Structure(json_rule({"type": "object"}))


def _regex(value: Any, path: str) -> Structure:
    from llguidance import regex_to_lark

    check_pattern(value, path)
    return Structure(f"/{regex_to_lark(value, '')}/".replace("\n", r"\n"))


def _choice(value: Any, path: str) -> Structure:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
        raise InvalidRequest("This must be a list of strings, with at least one.", param=path)
    if len(value) > MAX_CHOICES:
        raise InvalidRequest(f"There may be {MAX_CHOICES} choices.", param=path)
    check_bounds(value, path)
    return Structure(f"({' | '.join(quoted(item) for item in dict.fromkeys(value))})")


def _grammar(value: Any, path: str) -> Structure:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest("A grammar must be a string, and not empty.", param=path)
    if len(value) > MAX_GRAMMAR:
        raise InvalidRequest(f"A grammar may have {MAX_GRAMMAR} characters.", param=path)
    check_bounds(value, path)
    if value.lstrip().startswith("{"):
        raise InvalidRequest("A grammar must be written in Lark or GBNF; for a schema use `json`.", param=path)
    return Structure("@content", read_lark(value if _is_lark(value) else _from_gbnf(value, path), path))


def _is_lark(text: str) -> bool:
    return any(_LARK_START.match(line) for line in text.splitlines())


def _from_gbnf(text: str, path: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return str(gbnf_to_lark(text))
    except Exception as error:
        # It is a parser without errors of its own for everything that can be wrong.
        raise InvalidRequest(
            "The grammar is neither Lark with a rule `start` nor GBNF with a `root`.", param=path
        ) from error


_READERS = {"json": _json, "json_object": _json_object, "regex": _regex, "choice": _choice, "grammar": _grammar}
