"""`tunechat serve`: the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..contract.errors import ConfigError
from ..settings import Settings, load
from .options import CacheBytes, Device, MaxContext, Model, Quant, Threads, setting_option

if TYPE_CHECKING:
    from ..api.server_tools import OpenToolbox
    from ..api.settings import ApiSettings


def serve(
    model: Model = None,
    host: Annotated[str | None, setting_option("host")] = None,
    port: Annotated[str | None, setting_option("port")] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="Key that clients must send; may be repeated.", metavar="KEY"),
    ] = None,
    admin_key: Annotated[
        list[str] | None,
        typer.Option("--admin-key", help="Key that may change adapters; may be repeated.", metavar="KEY"),
    ] = None,
    adapter_folder: Annotated[str | None, setting_option("adapter_folder", "FOLDER")] = None,
    quant: Quant = None,
    device: Device = None,
    threads: Threads = None,
    max_context: MaxContext = None,
    cache_bytes: CacheBytes = None,
    max_batch_tokens: Annotated[str | None, setting_option("max_batch_tokens", "TOKENS")] = None,
    max_running: Annotated[str | None, setting_option("max_running", "N")] = None,
    max_waiting: Annotated[str | None, setting_option("max_waiting", "N")] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="Host name that requests may carry; may be repeated.", metavar="HOST"),
    ] = None,
    log_level: Annotated[str | None, setting_option("log_level", "debug|info|warning|error")] = None,
    server_tools: Annotated[str | None, setting_option("server_tools", "NAMES")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow a public address without a key.")] = False,
) -> None:
    """Serve a model to any OpenAI client. The first start fetches and prepares it."""
    settings = load(
        {
            "model": model,
            "host": host,
            "port": port,
            "api_keys": api_key or None,
            "admin_keys": admin_key or None,
            "adapter_folder": adapter_folder,
            "quant": quant,
            "device": device,
            "threads": threads,
            "max_context": max_context,
            "cache_bytes": cache_bytes,
            "max_batch_tokens": max_batch_tokens,
            "max_running": max_running,
            "max_waiting": max_waiting,
            "allowed_hosts": allowed_host or None,
            "log_level": log_level,
            "server_tools": server_tools,
        }
    ).settings
    from ..api.app import create_app
    from ..api.server import run
    from .starting import engine_client, showing_start

    told = api_settings(settings, insecure)
    engine = engine_client(settings)
    with showing_start(engine):
        run(create_app(engine, told, open_tools=tool_opener(settings)), told, log_level=settings.log_level)


def tool_opener(settings: Settings) -> OpenToolbox | None:
    """Opens the toolbox of `server_tools`; None without any. Raises ConfigError for permissions that are none."""
    if not settings.server_tools:
        return None
    from .toolboxes import needed_of, opened_toolbox, options_of

    options = options_of(settings)
    # What is wrong with an MCP server is in the log already.
    return lambda: opened_toolbox(options, needed_of(settings.server_tools), tell=lambda problem: None)


def api_settings(settings: Settings, insecure: bool) -> ApiSettings:
    """What the HTTP side is told. Raises ModelError for a model that cannot be and ConfigError for
    a dialect that is none: then nothing need be started."""
    from ..api.settings import MAX_SEQUENCES, ApiSettings
    from ..base.source import HubSource, PackageSource, parse_source
    from ..text.dialects import NAMES

    if settings.tool_dialect is not None and settings.tool_dialect not in NAMES:
        raise ConfigError(f"tool_dialect is {settings.tool_dialect!r}; it must be one of {', '.join(NAMES)}.")
    if strangers := set(settings.plain_tool_policies) - {*settings.plain_api_keys, *settings.plain_admin_keys}:
        raise ConfigError(f"tool_policies has {len(strangers)} keys that are none of api_keys and admin_keys.")
    source = parse_source(settings.model)
    named = isinstance(source, HubSource | PackageSource)
    return ApiSettings(
        model=source.name,
        model_aliases=(*((source.spec,) if named and source.spec != source.name else ()), *settings.model_aliases),
        host=settings.host,
        port=settings.port,
        api_keys=settings.plain_api_keys,
        admin_keys=settings.plain_admin_keys,
        adapter_store=settings.home / "adapters",
        response_store=settings.home / "responses.db",
        response_retention=settings.response_retention,
        max_stored_responses=settings.max_stored_responses,
        max_stored_bytes=settings.max_stored_bytes,
        job_store=settings.home / "jobs.db",
        train_threads=settings.train_threads,
        adapter_folder=settings.adapter_folder,
        adapter_paths=settings.adapter_paths,
        max_upload_bytes=settings.max_upload_bytes,
        tool_dialect=settings.tool_dialect,
        server_tools=settings.server_tools,
        tool_policies=settings.plain_tool_policies,
        insecure=insecure,
        allowed_hosts=settings.allowed_hosts,
        max_body_bytes=settings.max_body_bytes,
        # More would be told to come back later, and never fit.
        max_sequences=min(MAX_SEQUENCES, settings.max_running + settings.max_waiting),
        request_timeout=settings.request_timeout,
        send_timeout=settings.send_timeout,
        heartbeat_seconds=settings.heartbeat_seconds,
        drain_timeout=settings.drain_timeout,
    )
