"""The ASGI application: middleware from the outside in, then the routes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from ..jobs.inquiry import COMMAND as INQUIRY
from ..jobs.inquiry import Inquiries
from ..jobs.supervisor import COMMAND
from ..text.model_text import ModelText
from . import adapters, chat, completions, embeddings, health, lora, models, tokenize, tool_list
from .auth import Access, AuthMiddleware
from .context import RequestContextMiddleware
from .data import routes as data
from .data.office import Office
from .drain import DrainMiddleware
from .errors import install_error_handlers
from .files import routes as files
from .files.shelf import Shelf
from .gateway import Gateway
from .hosts import HostMiddleware
from .limits import LimitsMiddleware
from .messages import routes as messages
from .messages.errors import ErrorShapeMiddleware
from .metrics import Metrics
from .openapi import install_openapi
from .ports import Engine, Text
from .responses import routes as responses
from .responses.desk import Desk
from .server_tools import OpenToolbox
from .settings import ApiSettings
from .tuning import routes as tuning
from .tuning.workshop import Workshop

# FastAPI can send traces of requests to where environment variables say. Nothing leaves this server.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(
    engine: Engine,
    settings: ApiSettings,
    *,
    load_text: Callable[[Path], Text] = ModelText.load,
    open_tools: OpenToolbox | None = None,
    trainer: Sequence[str] = COMMAND,
    inquiry: Sequence[str] = INQUIRY,
) -> FastAPI:
    """The application in front of `engine`, which it starts and closes with its lifespan.

    `load_text` reads the text side from the engine's prepared base once the engine is ready. `open_tools` opens the
    toolbox of `settings.server_tools`, which is closed with the lifespan too. `trainer` is the command that runs a
    fine-tuning job, whose folder comes last, and `inquiry` the one that answers questions about recipes and data.
    `app.state.gateway` is the Gateway.
    """
    release = version("tunechat")
    metrics = Metrics(engine, release)
    gateway = Gateway(engine, settings, metrics, load_text, open_tools)
    desk = Desk(gateway)
    shelf = Shelf(settings)
    inquiries = Inquiries(inquiry)
    workshop = Workshop(gateway, shelf, inquiries, trainer)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with gateway.lifespan(), desk.lifespan(), shelf.lifespan(), workshop.lifespan():
            yield

    app = FastAPI(
        title="tunechat",
        version=release,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.gateway = gateway
    app.state.desk = desk
    app.state.shelf = shelf
    app.state.office = Office(inquiries)
    app.state.workshop = workshop
    for part in (
        chat,
        completions,
        embeddings,
        models,
        tokenize,
        adapters,
        lora,
        health,
        tool_list,
        messages,
        responses,
        files,
        tuning,
        data,
    ):
        app.include_router(part.router)
    install_error_handlers(app)
    install_openapi(app)
    # The last one added is the outermost.
    app.add_middleware(DrainMiddleware, drain=gateway.drain)
    app.add_middleware(LimitsMiddleware, settings=settings)
    app.add_middleware(HostMiddleware, settings=settings)
    app.add_middleware(AuthMiddleware, access=Access.of(settings))
    app.add_middleware(RequestContextMiddleware, metrics=metrics)
    app.add_middleware(ErrorShapeMiddleware)
    return app
