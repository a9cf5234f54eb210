"""Measures what an operation of a template would make, before it makes it.

Every check raises TemplateLimit. They are exact or too high where little input can make much output; where the result
cannot be larger than the inputs together, there is no check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .budget import TemplateLimit

MAX_CHARACTERS = 1 << 22
MAX_WIDTH = 1 << 12
MAX_NUMBER_BITS = 256
MAX_INDENT = 16
_WIDE_FIELD = re.compile(r"\d{4,}|%[^a-zA-Z%]*\*|\{[^{}]*\{")
# Not Unicode's noncharacters: they are marks on user text (see control_tokens), which must stay marks.
_ESCAPED = re.compile(r"[^\x00-\x7e\ufdd0-\ufdef]+")
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})

Function = Callable[..., Any]


def check_size(size: int) -> None:
    """Refuse a text or list of so many characters or items."""
    if size > MAX_CHARACTERS:
        raise TemplateLimit(f"it makes a text of more than {MAX_CHARACTERS} characters")


def join(pieces: Iterable[str]) -> str:
    """The pieces as one string."""
    pieces = list(pieces)
    check_size(sum(map(len, pieces)))
    return "".join(pieces)


def to_text(value: Any) -> str:
    """What `{{ value }}` prints."""
    text = value if isinstance(value, str) else str(value)
    check_size(len(text))
    return text


def to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as transformers writes it for chat templates: no HTML escapes, letters of all scripts as they are."""
    if indent is not None and (not isinstance(indent, int) or indent > MAX_INDENT):
        raise TemplateLimit(f"it indents JSON by more than {MAX_INDENT} spaces")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    if ensure_ascii:
        text = _ESCAPED.sub(lambda match: json.dumps(match[0])[1:-1], text)
    check_size(len(text))
    return text


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Measure `left operator right`."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() + right.bit_length() if operator == "*" else 0
        if operator == "**" and abs(left) > 1:
            bits = left.bit_length() * abs(right)
        if bits > MAX_NUMBER_BITS:
            raise TemplateLimit(f"it makes a number of more than {MAX_NUMBER_BITS} bits")
    elif operator == "*":
        for sized, times in ((left, right), (right, left)):
            if isinstance(sized, str | list | tuple) and isinstance(times, int):
                check_size(len(sized) * times)
    elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        check_size(len(left) + len(right))
    elif operator == "%" and isinstance(left, str):
        _check_format(left, right if isinstance(right, tuple) else (right,))


def check_call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Measure a call, where it is one of the methods of a string that make much of little."""
    method = getattr(function, "__wrapped__", function)
    text = getattr(method, "__self__", None)
    if not isinstance(text, str):
        return
    name = getattr(method, "__name__", "")
    if name in _PADDING:
        _check_widths(text, *args, **kwargs)
    elif name == "replace" and len(args) > 1:
        _check_replace(text, *args)
    elif name == "join" and args and isinstance(args[0], list | tuple):
        _check_join(text, args[0])
    elif name in ("format", "format_map"):
        _check_format(text, (*args, *kwargs.values()))


def guarded_filters(filters: Mapping[str, Function]) -> dict[str, Function]:
    """Those of jinja2's filters that make much of little, with their measure taken first."""
    guards: dict[str, Function] = {
        "batch": _check_widths,
        "slice": _check_widths,
        "format": lambda text, *args, **kwargs: _check_format(str(text), (*args, *kwargs.values())),
        "indent": _check_indent,
        "replace": lambda text, *args, **kwargs: _check_replace(str(text), *args, *kwargs.values()),
    }
    guarded = {name: _guard(filters[name], guard) for name, guard in guards.items()}
    return {**guarded, "join": _listing_join(filters["join"])}


def _guard(function: Function, guard: Function) -> Function:
    leading = 1 if hasattr(function, "jinja_pass_arg") else 0

    def guarded(*args: Any, **kwargs: Any) -> Any:
        guard(*args[leading:], **kwargs)
        return function(*args, **kwargs)

    return _passed_like(function, guarded)


def _listing_join(function: Function) -> Function:
    def listing(evaluation: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> Any:
        items = list(value)
        _check_join(str(d), items)
        return function(evaluation, items, d, attribute)

    return _passed_like(function, listing)


def _passed_like(function: Function, replacement: Function) -> Function:
    """`replacement`, marked to be called with the same leading argument as the filter it stands for."""
    if hasattr(function, "jinja_pass_arg"):
        replacement.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return replacement


def _check_join(separator: str, items: Iterable[Any]) -> None:
    items = list(items)
    check_size(len(separator) * len(items) + sum(len(item) for item in items if isinstance(item, str)))


def _check_replace(text: str, *args: Any) -> None:
    if len(args) > 1:
        old, new = str(args[0]), str(args[1])
        check_size(len(text) + text.count(old) * len(new))


def _check_indent(text: Any, width: int | str = 4, *args: Any, **kwargs: Any) -> None:
    lines = str(text).count("\n") + 1
    check_size(len(str(text)) + lines * (width if isinstance(width, int) else len(width)))


def _check_widths(value: Any, *args: Any, **kwargs: Any) -> None:
    if any(isinstance(width, int) and width > MAX_WIDTH for width in (*args, *kwargs.values())):
        raise TemplateLimit(f"it pads or parts by more than {MAX_WIDTH}")


def _check_format(pattern: str, arguments: tuple[Any, ...]) -> None:
    if _WIDE_FIELD.search(pattern):
        raise TemplateLimit("it formats with a width of more than three digits")
    fields = pattern.count("%") + pattern.count("{")
    longest = max((len(argument) for argument in arguments if isinstance(argument, str)), default=0)
    check_size(len(pattern) + fields * (999 + longest))
