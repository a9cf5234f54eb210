"""`tunechat doctor`: is this machine fit, and does a server behave as clients expect?"""

from __future__ import annotations

from collections.abc import Iterable
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
    from .machine import Check, machine_checks

    checks: Iterable[Check]
    if url is None:
        checks = machine_checks(settings)
    else:
        from .probes import probe_server
        from .server import Server

        with Server.of(settings) as server:
            checks = probe_server(server)
    found = list(checks)
    if json:
        print_json([asdict(check) for check in found])
    else:
        print_table(("check", "result", "detail"), [(check.name, check.status, check.detail) for check in found])
    if any(check.status == "fail" for check in found):
        raise typer.Exit(1)
