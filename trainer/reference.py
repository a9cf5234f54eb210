"""Every key of a recipe as a table: kind, default, bounds, meaning."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .recipe import Recipe, is_auto


def keys() -> list[tuple[str, str, str, str]]:
    """Key, values that it takes, default, and meaning of each, in order."""
    return [
        (key, _values(field), "auto" if is_auto(key) else _shown(field.default), field.description or "")
        for key, field in Recipe.model_fields.items()
    ]


def reference() -> str:
    """The Markdown table of every key."""
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, values, default, meaning in keys():
        cells = (f"`{key}`", values.replace("|", "\\|"), f"`{default}`" if default else "", meaning.replace("|", "\\|"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _values(field: FieldInfo) -> str:
    kind = _kind(field.annotation)
    bounds = {type(item): item for item in field.metadata}
    low, above = bounds.get(annotated_types.Ge), bounds.get(annotated_types.Gt)
    high, below = bounds.get(annotated_types.Le), bounds.get(annotated_types.Lt)
    if low is None and above is None:
        return kind
    first = f"{low.ge:,}" if low is not None else f"above {above.gt:,}" if above is not None else ""
    last = f"{high.le:,}" if high is not None else f"below {below.lt:,}" if below is not None else ""
    return f"{kind}, {first} to {last}" if last else f"{kind}, from {first}"


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return ", ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return _kind(next(argument for argument in arguments if argument is not type(None)))
    if origin is tuple:
        return "texts"
    return {int: "whole number", float: "number", bool: "true, false", str: "text"}[annotation]


def _shown(default: Any) -> str:
    if default is PydanticUndefined or default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)
