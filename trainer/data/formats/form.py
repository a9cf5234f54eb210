"""What a format is, and what all of them need: fields of the right type, tools, arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..json_text import BadJson, read_json, write_json
from ..record import Record
from ..sample import Sample

MAX_TOOLS = 128
MAX_MESSAGES = 10_000
MAX_WEIGHT = 100


class Format(Protocol):
    """One form of examples. `about` is one line on what its records have."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str: ...

    def recognises(self, value: Mapping[str, Any]) -> int:
        """0: this is something else. Else the more, the surer: the format with the most is taken."""

    def read(self, record: Record) -> Sample:
        """The sample that the record is. Raises InvalidData with the field that is wrong, and how to mend it."""


def fields_of(record: Record) -> Mapping[str, Any]:
    """The record as an object. Raises InvalidData for another value."""
    if not isinstance(record.value, Mapping):
        raise record.error("a record must be an object", 'write {"messages": [...]}', kind="format")
    return record.value


def text_at(record: Record, value: Any, field: str) -> str:
    """`value` as text, "" for none. Numbers are written out, since tables have them. Raises InvalidData."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise record.error(f"this must be text, not {_kind(value)}", "write a string", field=field)
    return str(value)


def list_at(record: Record, value: Any, field: str) -> Sequence[Any]:
    """`value` as a list: itself, or read from JSON text, which tables hold. Raises InvalidData."""
    if isinstance(value, str):
        try:
            value = read_json(value)
        except BadJson as error:
            raise record.error(str(error), "write a list", field=field, kind="json") from error
    if not isinstance(value, list):
        raise record.error(f"this must be a list, not {_kind(value)}", "write a list", field=field)
    if len(value) > MAX_MESSAGES:
        raise record.error(f"this has more than {MAX_MESSAGES} items", "split it", field=field, kind="size")
    return value


def object_at(record: Record, value: Any, field: str) -> Mapping[str, Any]:
    """`value` as an object. Raises InvalidData."""
    if not isinstance(value, Mapping):
        raise record.error(f"this must be an object, not {_kind(value)}", "write {...}", field=field)
    return value


def tools_at(record: Record, value: Any, field: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Tools as OpenAI writes them, from a list of them or of bare functions, or its JSON. Raises InvalidData."""
    if value is None or value == "":
        return ()
    items = list_at(record, value, field)
    if len(items) > MAX_TOOLS:
        what = f"these are {len(items)} tools; a request may have {MAX_TOOLS}"
        raise record.error(what, "leave out those that are not used", field=field, kind="tool_definition")
    tools = []
    for index, item in enumerate(items):
        tool = object_at(record, item, f"{field}[{index}]")
        is_whole = "function" in tool or ("type" in tool and "name" not in tool)
        tools.append(tool if is_whole else {"type": "function", "function": tool})
    return tuple(tools)


def arguments_at(record: Record, value: Any, field: str) -> str:
    """Arguments of a call as JSON text: text is kept to the character. Raises InvalidData where it is no object."""
    if value is None or value == "":
        return "{}"
    if isinstance(value, Mapping):
        return write_json(value)
    mend = "write the arguments as a JSON object"
    if not isinstance(value, str):
        raise record.error(f"arguments must be an object, not {_kind(value)}", mend, field=field, kind="arguments")
    try:
        parsed = read_json(value)
    except BadJson as error:
        raise record.error(str(error), mend, field=field, kind="arguments") from error
    if not isinstance(parsed, dict):
        raise record.error(f"arguments must be an object, not {_kind(parsed)}", mend, field=field, kind="arguments")
    return value


def weight_at(record: Record, message: Mapping[str, Any], field: str) -> float | None:
    """What a message counts: OpenAI's `weight`, or the `loss` or `train` of others. None where nothing is said."""
    for name in ("weight", "loss", "train"):
        value = message.get(name)
        if value is None:
            continue
        if isinstance(value, str) and value.strip().lower() in ("true", "false", "0", "1"):
            return float(value.strip().lower() in ("true", "1"))
        if isinstance(value, bool | int | float) and 0 <= value <= MAX_WEIGHT:
            return value if isinstance(value, float) else int(value)
        raise record.error(f"this must be from 0 to {MAX_WEIGHT}", "write 0 or 1", field=f"{field}.{name}")
    return None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
