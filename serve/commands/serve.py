"""`tunechat serve`: the server."""

from __future__ import annotations

from typing import Annotated

import typer

from ..settings import Settings, SettingsError, load
from .options import CacheBytes, Device, MaxContext, Model, Quant, Threads, setting_option


def serve(
    model: Model = None,
    host: Annotated[str | None, setting_option("host")] = None,
    port: Annotated[str | None, setting_option("port")] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="Key that clients must send; may be repeated.", metavar="KEY"),
    ] = None,
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
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow a public address without a key.")] = False,
) -> None:
    """Serve a model to any OpenAI client. The first start fetches and prepares it."""
    settings = load(
        {
            "model": model,
            "host": host,
            "port": port,
            "api_keys": api_key or None,
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
        }
    ).settings
    refuse_open_public(settings, insecure)
    from ..api.app import create_app
    from ..api.server import run
    from ..engine.client import EngineClient
    from .starting import api_settings, engine_options

    engine = EngineClient(engine_options(settings))
    run(create_app(engine, api_settings(settings, insecure)), api_settings(settings, insecure))


def refuse_open_public(settings: Settings, insecure: bool) -> None:
    """Raises SettingsError for an address that other machines reach while no key is asked for."""
    if not settings.is_loopback and not settings.api_keys and not insecure:
        raise SettingsError(
            f"{settings.host} can be reached from other machines, and no key is set; "
            "add --api-key KEY, or type --insecure if anyone may use this server"
        )
