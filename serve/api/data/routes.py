"""The routes under /v1/data and /v1/recipes."""

from __future__ import annotations

import asyncio
import difflib
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ...contract.errors import NotFound, TunechatError
from ...contract.inquiry import AskCheck, AskPreview, Checked, Previewed, ReadyMadeRecipe
from ..body import read_body
from ..context import request_context
from ..disconnect import until_disconnect
from ..encoding import encode_json
from ..files.shelf import shelf_of
from ..gateway import gateway_of
from ..openapi import describe
from .office import office_of
from .request import CheckRequest, DataRequest, PreviewRequest

router = APIRouter(tags=["data"])


@router.post("/v1/data/check", **describe("Say what data holds and what is wrong with it.", CheckRequest))
async def check_data(request: Request) -> Response:
    body = await read_body(request, CheckRequest)
    question = AskCheck(**await _about(request, body, body.validation_file))
    ask = office_of(request).inquiries.ask(question, Checked)
    checked = await until_disconnect(request.receive, _told(ask))
    return _json({"object": "data.check", **checked.report})


@router.post("/v1/data/preview", **describe("Show samples as the model reads them.", PreviewRequest))
async def preview_data(request: Request) -> Response:
    body = await read_body(request, PreviewRequest)
    question = AskPreview(**await _about(request, body), limit=body.limit, skip=body.skip)
    ask = office_of(request).inquiries.ask(question, Previewed)
    previewed = await until_disconnect(request.receive, _told(ask))
    plain = msgspec.to_builtins(previewed)
    plain.pop("answer")
    return _json({"object": "data.preview", **plain})


@router.get("/v1/recipes", **describe("List the ready-made recipes, and every key that a recipe may have."))
async def list_recipes(request: Request) -> Response:
    known = await until_disconnect(request.receive, office_of(request).recipes())
    return _json(
        {
            "object": "list",
            "data": [_record(recipe) for recipe in known.recipes],
            "keys": msgspec.to_builtins(known.keys),
        }
    )


@router.get("/v1/recipes/{name}", **describe("A ready-made recipe."))
async def show_recipe(request: Request, name: str) -> Response:
    known = await until_disconnect(request.receive, office_of(request).recipes())
    found = {recipe.name: recipe for recipe in known.recipes}
    if name not in found:
        close = difflib.get_close_matches(name.lower()[:64], found, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"These are: {', '.join(found)}."
        raise NotFound(f"There is no recipe {ascii(name)[:80]}; {hint}", param="name")
    return _json(_record(found[name]))


async def _about(request: Request, body: DataRequest, validation: str | None = None) -> dict[str, Any]:
    """The fields of the question that say what it is about. Raises NotFound for files that are not the asker's."""
    recipe, names = body.recipe, {}
    tenant = request_context(request).tenant
    for field, key, file in (("file", "data", body.file), ("validation_file", "validation", validation)):
        if file is None:
            continue
        files = shelf_of(request).files
        try:
            stored = await asyncio.to_thread(files.read, tenant, file)
        except NotFound as error:
            raise NotFound(error.message, param=field) from error
        path = str(stored.path.resolve())
        recipe[key] = [path]
        names[path] = stored.name
    return {
        "recipe": recipe,
        "entry": gateway_of(request).info.entry,
        "names": names,
        "text": body.text,
        "text_name": body.filename or "",
    }


async def _told(ask: Any) -> Any:
    """What is answered. An error names the field of the request, not the recipe's key."""
    try:
        return await ask
    except TunechatError as error:
        error.param = {"text_name": "filename", "data": "file"}.get(error.param or "", error.param)
        raise


def _record(recipe: ReadyMadeRecipe) -> dict[str, Any]:
    return {
        "id": recipe.name,
        "object": "recipe",
        "about": recipe.about,
        "text": recipe.text,
        "recipe": recipe.recipe,
        "chosen_by_the_data": list(recipe.open),
    }


def _json(content: Any) -> Response:
    return Response(encode_json(content), media_type="application/json")
