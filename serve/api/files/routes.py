"""The routes under /v1/files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from ...contract.errors import InvalidRequest
from ...jobs.files import MOST_AT_ONCE, PURPOSES, StoredFile
from ..context import request_context
from ..encoding import encode_json
from ..openapi import describe
from .form import FileForm
from .shelf import shelf_of

router = APIRouter(tags=["files"])

_BLOCK = 256 * 1024
_ORDERS = ("asc", "desc")


def _query(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES[:1])},
                    },
                }
            }
        },
    }
}
_LIST = {
    "parameters": [
        _query("after", type="string"),
        _query("limit", type="integer", minimum=1, maximum=MOST_AT_ONCE, default=MOST_AT_ONCE),
        _query("order", type="string", enum=list(_ORDERS), default="desc"),
        _query("purpose", type="string"),
    ]
}


@router.post("/v1/files", **describe("Upload a file to learn from.") | {"openapi_extra": _FORM})
async def upload_file(request: Request) -> Response:
    context = request_context(request)
    with shelf_of(request).uploading() as files:
        form = FileForm(request)
        name = await form.open()
        known = form.known_purpose
        purpose = (lambda: _taken(form.purpose())) if known is None else _taken(known)
        stored = await files.add(context.tenant, name, purpose, form.content())
    return _json(_record(stored))


@router.get("/v1/files", **describe("List the files, in pages.") | {"openapi_extra": _LIST})
async def list_files(request: Request) -> Response:
    query = request.query_params
    order, limit = query.get("order", "desc"), query.get("limit", str(MOST_AT_ONCE))
    if order not in _ORDERS:
        raise InvalidRequest("'order' is asc or desc.", param="order", code="invalid_value")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= MOST_AT_ONCE):
        raise InvalidRequest(f"'limit' is a number from 1 to {MOST_AT_ONCE}.", param="limit", code="invalid_value")
    found = await asyncio.to_thread(
        shelf_of(request).files.page,
        request_context(request).tenant,
        purpose=query.get("purpose"),
        after=query.get("after"),
        limit=int(limit) + 1,
        oldest_first=order == "asc",
    )
    shown = found[: int(limit)]
    return _json(
        {
            "object": "list",
            "data": [_record(stored) for stored in shown],
            "first_id": shown[0].id if shown else None,
            "last_id": shown[-1].id if shown else None,
            "has_more": len(found) > len(shown),
        }
    )


@router.get("/v1/files/{file_id}", **describe("Describe a file."))
async def show_file(request: Request, file_id: str) -> Response:
    stored = await asyncio.to_thread(shelf_of(request).files.read, request_context(request).tenant, file_id)
    return _json(_record(stored))


@router.get("/v1/files/{file_id}/content", **describe("A file as it was sent.", media_type="application/octet-stream"))
async def read_file(request: Request, file_id: str) -> Response:
    files, context = shelf_of(request).files, request_context(request)
    stored = await asyncio.to_thread(files.read, context.tenant, file_id)
    content = await asyncio.to_thread(files.content, context.tenant, file_id)
    context.closing.callback(content.close)
    headers = {
        "content-length": str(stored.size),
        "content-disposition": f'attachment; filename="{stored.path.name}"',
    }
    return StreamingResponse(_blocks(content), media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}", **describe("Delete a file."))
async def delete_file(request: Request, file_id: str) -> Response:
    await asyncio.to_thread(shelf_of(request).files.delete, request_context(request).tenant, file_id)
    return _json({"id": file_id, "object": "file", "deleted": True})


def _taken(purpose: str) -> str:
    """Raises InvalidRequest for another purpose than clients may give."""
    if purpose != PURPOSES[0]:
        raise InvalidRequest(f"Files are taken with the purpose {PURPOSES[0]} alone.", param="purpose")
    return purpose


async def _blocks(content: BinaryIO) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(content.read, _BLOCK):
        yield block


def _record(stored: StoredFile) -> dict[str, Any]:
    """OpenAI's file object. What is stored is whole, which it calls processed."""
    return {
        "id": stored.id,
        "object": "file",
        "bytes": stored.size,
        "created_at": int(stored.created),
        "expires_at": None,
        "filename": stored.name,
        "purpose": stored.purpose,
        "status": "processed",
        "status_details": None,
    }


def _json(content: Any) -> Response:
    return Response(encode_json(content), media_type="application/json")
