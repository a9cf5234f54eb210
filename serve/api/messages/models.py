"""The list of models as Anthropic's clients read it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from ...contract.errors import InvalidRequest

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 1000

Entry = Mapping[str, Any]


def model_info(entry: Entry) -> dict[str, Any]:
    """One model, from its entry in OpenAI's shape."""
    created = datetime.datetime.fromtimestamp(entry["created"], datetime.UTC)
    return {
        "type": "model",
        "id": entry["id"],
        "display_name": entry["id"],
        "created_at": created.isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": entry.get("max_model_len"),
        "max_tokens": entry.get("max_model_len"),
    }


def model_page(entries: Sequence[Entry], query: Mapping[str, str]) -> dict[str, Any]:
    """The page of `entries` that `after_id`, `before_id` and `limit` ask for. Raises InvalidRequest."""
    limit = _limit(query.get("limit"))
    ids = [entry["id"] for entry in entries]
    first, end = 0, len(ids)
    if "after_id" in query:
        first = _position(ids, query["after_id"], "after_id") + 1
    if "before_id" in query:
        end = _position(ids, query["before_id"], "before_id")
    backwards = "before_id" in query and "after_id" not in query
    chosen = range(max(first, end - limit), end) if backwards else range(first, min(end, first + limit))
    page = [entries[index] for index in chosen]
    return {
        "data": [model_info(entry) for entry in page],
        "has_more": len(page) < max(0, end - first),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MAX_LIMIT:
        return int(text[:9])
    raise InvalidRequest(f"It must be a number from 1 to {_MAX_LIMIT}.", param="limit")


def _position(ids: Sequence[str], id_: str, param: str) -> int:
    if id_ not in ids:
        raise InvalidRequest("No model has this id.", param=param)
    return ids.index(id_)
