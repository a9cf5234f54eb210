"""The routes under /v1/fine_tuning/jobs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ...contract.errors import InvalidRequest
from ...contract.inquiry import AskRecipe, CompleteRecipe
from ...jobs.job import Job, NewJob
from ...jobs.store import MOST_AT_ONCE
from ..body import read_body
from ..context import request_context
from ..disconnect import until_disconnect
from ..encoding import encode_json
from ..gateway import Gateway, gateway_of
from ..openapi import describe
from ..served import model_not_found
from .event_stream import stream_events
from .following import MOST_CHECKPOINTS
from .naming import checkpoint_id
from .records import checkpoint_record, event_record, job_record, number_of
from .request import CreateJobRequest
from .wishes import Wishes, wishes_of
from .workshop import Workshop, workshop_of

router = APIRouter(tags=["fine-tuning"])

_USUAL = 20
_USUAL_CHECKPOINTS = 10
_METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_MOST_PAIRS = 16


def _query(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _paged(summary: str, usual: int, *more: dict[str, Any], streams: bool = False) -> dict[str, Any]:
    described = describe(summary, streams=streams)
    described["openapi_extra"]["parameters"] = [
        _query("after", type="string"),
        _query("limit", type="integer", minimum=1, maximum=MOST_AT_ONCE, default=usual),
        *more,
    ]
    return described


@router.post("/v1/fine_tuning/jobs", **describe("Make a fine-tuning job.", CreateJobRequest))
async def create_job(request: Request) -> Response:
    gateway, workshop, tenant = gateway_of(request), workshop_of(request), request_context(request).tenant
    body = await read_body(request, CreateJobRequest)
    workshop.check_may_train(tenant)
    _check_base(request, body.model)
    jobs, wishes = workshop.jobs, wishes_of(body)
    if wishes.name is not None:
        _check_name(gateway, wishes.name, request_context(request).owner)
    if body.recipe:
        await until_disconnect(request.receive, _check_recipe(gateway, workshop, wishes))
    job = await asyncio.to_thread(
        jobs.create,
        NewJob(
            tenant=tenant,
            model=gateway.settings.model,
            recipe=wishes.recipe,
            training_file=body.training_file,
            validation_file=body.validation_file,
            suffix=wishes.name,
            request=wishes.request,
            validate=True,
        ),
    )
    workshop.wake()
    return _json(job_record(job))


@router.get(
    "/v1/fine_tuning/jobs",
    **_paged(
        "List the jobs, the newest first.",
        _USUAL,
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    ),
)
async def list_jobs(request: Request) -> Response:
    limit = _limit(request, _USUAL)
    found = await asyncio.to_thread(
        workshop_of(request).jobs.page,
        request_context(request).tenant,
        after=request.query_params.get("after"),
        limit=limit + 1,
        metadata=_metadata(request),
    )
    return _page([job_record(job) for job in found], limit)


@router.get("/v1/fine_tuning/jobs/{fine_tuning_job_id}", **describe("A job."))
async def show_job(request: Request, fine_tuning_job_id: str) -> Response:
    tenant = request_context(request).tenant
    return _json(job_record(await asyncio.to_thread(workshop_of(request).jobs.read, tenant, fine_tuning_job_id)))


@router.post(
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel",
    **describe("End a job for good. Nothing of it is published after."),
)
async def cancel_job(request: Request, fine_tuning_job_id: str) -> Response:
    return await _changed(request, workshop_of(request).jobs.cancel, fine_tuning_job_id)


@router.post(
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause",
    **describe("Stop a job at its next checkpoint, until it is resumed."),
)
async def pause_job(request: Request, fine_tuning_job_id: str) -> Response:
    return await _changed(request, workshop_of(request).jobs.pause, fine_tuning_job_id)


@router.post(
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume", **describe("Let a paused job go on from its checkpoint.")
)
async def resume_job(request: Request, fine_tuning_job_id: str) -> Response:
    return await _changed(request, workshop_of(request).jobs.resume, fine_tuning_job_id)


@router.get(
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events",
    **_paged("What happened to a job.", _USUAL, _query("stream", type="boolean", default=False), streams=True),
)
async def list_events(request: Request, fine_tuning_job_id: str) -> Response:
    jobs, tenant, after = workshop_of(request).jobs, request_context(request).tenant, request.query_params.get("after")
    limit = _limit(request, _USUAL)
    number = None if after is None else number_of("ftevent", fine_tuning_job_id, after)
    if _is_on(request, "stream"):
        await asyncio.to_thread(jobs.read, tenant, fine_tuning_job_id)
        return stream_events(request, fine_tuning_job_id, number or 0)
    found = await asyncio.to_thread(jobs.latest_events, tenant, fine_tuning_job_id, before=number, limit=limit + 1)
    return _page([event_record(fine_tuning_job_id, event) for event in found], limit)


@router.get(
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
    **_paged("The checkpoints of a job that requests can ask for.", _USUAL_CHECKPOINTS),
)
async def list_checkpoints(request: Request, fine_tuning_job_id: str) -> Response:
    jobs, tenant, after = workshop_of(request).jobs, request_context(request).tenant, request.query_params.get("after")
    limit = _limit(request, _USUAL_CHECKPOINTS)
    before = None if after is None else number_of("ftckpt", fine_tuning_job_id, after)
    job = await asyncio.to_thread(jobs.read, tenant, fine_tuning_job_id)
    found = await asyncio.to_thread(jobs.checkpoints, tenant, fine_tuning_job_id, limit=MOST_CHECKPOINTS)
    # Those that can be asked: one may still be being stored, or could not be, or had to make room.
    models = gateway_of(request).adapters.view(request_context(request).sees)
    shown = [
        one for one in found if (before is None or one.step < before) and models.knows(checkpoint_id(job, one.step))
    ]
    return _page([checkpoint_record(job, one) for one in shown], limit)


def _check_base(request: Request, model: str) -> None:
    """Raises ModelNotFound for a model that is none, and InvalidRequest for one that is no base."""
    gateway = gateway_of(request)
    if model in gateway.names:
        return
    if gateway.adapters.view(request_context(request).sees).knows(model):
        raise InvalidRequest(
            f"'{model[:80]}' is an adapter already, and learning cannot go on from one: name the base model, "
            f"{gateway.settings.model}.",
            param="model",
        )
    raise model_not_found(model)


def _check_name(gateway: Gateway, name: str, owner: str) -> None:
    """Raises InvalidRequest for a name that is none, and Conflict for somebody else's."""
    try:
        gateway.adapters.check_free(name, owner)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param="suffix", code="invalid_value") from error


async def _check_recipe(gateway: Gateway, workshop: Workshop, wishes: Wishes) -> None:
    """Raises InvalidRequest, which names the field, for what is no recipe or cannot be trained on this base."""
    info = gateway.engine.info
    question = AskRecipe(recipe=wishes.recipe, entry="" if info is None else info.entry)
    try:
        await workshop.inquiries.ask(question, CompleteRecipe)
    except InvalidRequest as error:
        param = None if error.param is None else wishes.field(error.param)
        raise InvalidRequest(error.message, param=param or "recipe", code=error.code) from error


async def _changed(request: Request, change: Callable[[str, str], Job], job_id: str) -> Response:
    job = await asyncio.to_thread(change, request_context(request).tenant, job_id)
    workshop_of(request).wake()
    return _json(job_record(job))


def _limit(request: Request, usual: int) -> int:
    text = request.query_params.get("limit", str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST_AT_ONCE):
        raise InvalidRequest(f"'limit' is a number from 1 to {MOST_AT_ONCE}.", param="limit", code="invalid_value")
    return int(text)


def _is_on(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise InvalidRequest(f"'{name}' is true or false.", param=name, code="invalid_value")
    return text in ("true", "1")


def _metadata(request: Request) -> dict[str, str] | None:
    """What jobs must have; {} for `metadata=null`, which asks for those that have none. Raises InvalidRequest."""
    query = request.query_params.multi_items()
    if ("metadata", "null") in query:
        return {}
    asked = [(_METADATA.fullmatch(key), value) for key, value in query if key.startswith("metadata")]
    pairs = {found[1]: value for found, value in asked if found is not None}
    if len(pairs) < len(asked) or len(pairs) > _MOST_PAIRS:
        raise InvalidRequest(
            f"'metadata' is null, or up to {_MOST_PAIRS} pairs such as metadata[team]=a.",
            param="metadata",
            code="invalid_value",
        )
    return pairs or None


def _page(records: Sequence[dict[str, Any]], limit: int) -> Response:
    shown = records[:limit]
    return _json(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(records) > limit,
        }
    )


def _json(content: Any) -> Response:
    return Response(encode_json(content), media_type="application/json")
