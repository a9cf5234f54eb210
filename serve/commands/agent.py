"""`tunechat agent`: a question that the model may answer with tools."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contract.errors import NotFound, TunechatError
from ..settings import Settings, load
from .options import ApiKey, Url
from .output import print_json

if TYPE_CHECKING:
    from ...tools.agent.model import ChatTuneChat
    from ...tools.agent.run import Step
    from ...tools.toolbox import Toolbox

_LONGEST = 1000  # characters of a result that are shown


def agent(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    tools: Annotated[
        str,
        typer.Option("--tools", help="Names of tools, separated by commas; globs too. Default: those not asked for."),
    ] = "",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Base, adapter or version. Default: the base.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 always gives the same answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of one turn.")] = None,
    must_call: Annotated[
        bool,
        typer.Option("--must-call", help="The model calls one tool first; small models may not do so by themselves."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Yes to whatever the policy asks about.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a step.")] = False,
) -> None:
    """Ask a question that the model may use tools for; see each call and each result.

    Asks before a call where the policy says so; where nobody sits at the terminal, that means no.
    """
    settings = load({"url": url, "api_keys": api_key or None}).settings
    text = sys.stdin.read() if question == "-" else question
    asyncio.run(
        _run(settings, text, tools, model, system, temperature, max_tokens, must_call=must_call, yes=yes, json=json)
    )


async def _run(
    settings: Settings,
    question: str,
    tools: str,
    model: str | None,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    *,
    must_call: bool,
    yes: bool,
    json: bool,
) -> None:
    from ...tools.agent.run import run_agent
    from .toolboxes import asker, needed_of, opened_toolbox, options_of

    wanted = [name.strip() for name in tools.split(",") if name.strip()]
    terminal = asker()

    async def ask(call: Any) -> bool:
        return yes or (terminal is not None and await terminal(call, box.decide(box.checked(call))))

    async with (
        _chat(settings, model, temperature, max_tokens) as chat,
        opened_toolbox(options_of(settings), needed=needed_of(wanted)) as box,
    ):
        names = _chosen(box, wanted)
        steps = run_agent(
            chat,
            box,
            names,
            question,
            ask=ask if yes or terminal is not None else None,
            must_call=must_call,
            system_prompt=system,
        )
        await _show(_told(steps, settings), json=json)


def _chat(
    settings: Settings, model: str | None, temperature: float | None, max_tokens: int | None
) -> AbstractAsyncContextManager[ChatTuneChat]:
    from pydantic import SecretStr

    from ...tools.agent.model import opened_chat
    from .server import Server

    if model is None:
        with Server.of(settings) as server:
            model = str(server.get("/v1/models")["data"][0]["id"])
    keys = settings.plain_api_keys
    return opened_chat(
        model,
        f"{settings.server_url}/v1",
        api_key=SecretStr(keys[0] if keys else "none"),
        temperature=temperature,
        max_tokens=max_tokens,
        streaming=True,
        timeout=settings.request_timeout,
        max_retries=0,
    )


def _chosen(box: Toolbox, wanted: Sequence[str]) -> list[str]:
    """The names that `wanted` means, globs included. Raises NotFound for one that means none."""
    specs = box.specs()
    if not wanted:
        return [spec.name for spec in specs if not spec.effects]
    chosen: dict[str, None] = {}
    for pattern in wanted:
        found = [spec.name for spec in specs if fnmatchcase(spec.name, pattern)]
        if not found:
            known = ", ".join(spec.name for spec in specs)
            raise NotFound(f"there is no tool {pattern[:100]!r}; there are {known}")
        chosen.update(dict.fromkeys(found))
    return list(chosen)


async def _told(steps: AsyncIterator[Step], settings: Settings) -> AsyncIterator[Step]:
    """The steps, with the errors of the model's server as tunechat's own."""
    import openai

    from ..contract.errors import ErrorRecord, Unavailable

    try:
        async for step in steps:
            yield step
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        record = ErrorRecord(
            code=str(body.get("code") or "internal_error"),
            message=str(body.get("message") or f"the server answered with status {error.status_code}"),
            http_status=error.status_code,
        )
        raise TunechatError.from_record(record) from error
    except openai.APIConnectionError as error:
        raise Unavailable(f"no server answers at {settings.server_url}; `tunechat serve` starts one") from error
    except openai.APIError as error:
        raise TunechatError(f"the server's answer broke off: {error.message}") from error


async def _show(steps: AsyncIterator[Step], *, json: bool) -> None:
    from ...tools.agent.run import Called, Finished, Returned, Spoke
    from .agent_view import View, json_of

    view = View(_LONGEST)
    async for step in steps:
        if json:
            if not isinstance(step, Spoke):
                print_json(json_of(step))
            continue
        match step:
            case Spoke(text=text, reasoning=reasoning):
                view.text(text, reasoning=reasoning)
            case Called(call=call):
                view.call(call)
            case Returned(result=result):
                view.result(result)
            case Finished() as finished:
                view.end(finished)
