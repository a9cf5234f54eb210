"""A shape that a text must have, to stand in a grammar alone or beside other things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# One blank, or a new line with indentation: what models write, and never enough to write blanks for ever.
WHITE_SPACE = r"\x20|\x0A\x20{0,32}"


@dataclass(frozen=True, slots=True)
class Structure:
    """`expression` stands for the text in llguidance's Lark; `whole` is a grammar that it calls `@content`."""

    expression: str
    whole: str = ""

    def to_grammar(self) -> str:
        """The grammar of a text that is this and nothing else."""
        return self.whole or f"start: {self.expression}"


def quoted(text: str) -> str:
    """`text` as a literal of Lark."""
    return json.dumps(text)


def json_rule(schema: Mapping[str, Any] | bool) -> str:
    """A Lark expression for JSON texts of a schema that was read by `read_schema`."""
    as_object = schema if isinstance(schema, Mapping) else {"allOf": [schema]}
    return "%json " + json.dumps({**as_object, "x-guidance": {"whitespace_pattern": WHITE_SPACE, "lenient": False}})


def combined(lark: str, whole: str) -> str:
    """The grammar `lark`, in which `@content` is the grammar `whole`; `lark` itself where that is ""."""
    if not whole:
        return lark
    return json.dumps(
        {"grammars": [{"name": "turn", "lark_grammar": lark}, {"name": "content", "lark_grammar": whole}]}
    )
