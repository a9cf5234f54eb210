"""`tunechat doctor`: is this machine fit, and does a server behave as clients expect?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from ..settings import load
from .options import ApiKey, Json, Url
from .output import print_json, print_table


def doctor(url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Check this machine; with --url, check a server's answers against what OpenAI clients rely on.

    Exits with 1 when a check fails.
    """
    settings = load({"url": url, "api_keys": api_key or None}).settings
    from .machine import machine_checks

    if url is None:
        found = list(machine_checks(settings))
    else:
        from .probes import probe_server
        from .server import Server

        with Server.of(settings) as server:
            found = list(probe_server(server))
    if json:
        print_json([asdict(check) for check in found])
    else:
        print_table(("check", "result", "detail"), [(check.name, check.status, check.detail) for check in found])
    if any(check.status == "fail" for check in found):
        raise typer.Exit(1)
