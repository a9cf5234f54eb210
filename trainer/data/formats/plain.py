"""Text without turns, for incremental pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..record import Record
from ..sample import PlainText
from .form import fields_of, text_at

_NAMES = ("text", "content", "article", "body")


class Plain:
    """Records of text, and text files."""

    name = "text"
    about = '{"text": "..."}, .txt and .md files'

    def recognises(self, value: Mapping[str, Any]) -> int:
        return int(_name(value) is not None)

    def read(self, record: Record) -> PlainText:
        value = fields_of(record)
        name = _name(value)
        if name is None:
            raise record.error("there is no text", 'write {"text": "..."}', field="text", kind="format")
        return PlainText(text_at(record, value[name], name), record.place)


def _name(value: Mapping[str, Any]) -> str | None:
    return next((name for name in _NAMES if isinstance(value.get(name), str)), None)
