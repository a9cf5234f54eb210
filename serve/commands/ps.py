"""`tunechat ps`: what a running server does."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contract.errors import Unavailable
from ..settings import load
from .options import ApiKey, Json, Url
from .output import format_bytes, print_json, print_table
from .ps_adapters import adapters_of, counted, is_lively, print_adapters
from .ps_jobs import job_rows, jobs_of, print_trainers

if TYPE_CHECKING:
    from .server import Server

_SAMPLE = re.compile(
    r"([a-zA-Z_:][\w:]*)(?:\{.*\})? ([+-]?(?:[0-9.]+(?:[eE][+-]?[0-9]+)?|Inf|NaN))(?: -?[0-9]+)?", re.ASCII
)


def ps(
    url: Url = None,
    api_key: ApiKey = None,
    interval: Annotated[
        float, typer.Option(min=0.1, max=60, help="Seconds over which tokens per second are measured.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Show what a running server serves, how busy it is, and what it uses."""
    settings = load({"url": url, "api_keys": api_key or None, "admin_keys": api_key or None}).settings
    from .server import Server

    with Server.admin_of(settings) as server:
        status = status_of(server, interval)
    if json:
        print_json(status)
        return
    cache = status["cache"]
    rows = [
        ("server", f"{status['url']}, version {status['version']}"),
        ("state", status["state"]),
        *(("model", _described(model)) for model in status["models"] if model.get("parent") is None),
        ("engine memory", format_bytes(status["memory_bytes"])),
        ("running", f"{status['running']} sequences"),
        ("waiting", f"{status['waiting']} sequences"),
        ("tokens/s", f"{status['tokens_per_second']:.1f} over {interval:g} s"),
        ("cache", f"{cache['used']} of {cache['total']} blocks in use, {cache['kept']} kept for later prompts"),
        ("restarts", status["restarts"]),
    ]
    if status["adapters"]:
        rows.append(("adapters", counted(status["adapters"])))
    rows += job_rows(status["jobs"], status["memory_bytes"])
    print_table(("", ""), rows)
    if lively := [adapter for adapter in status["adapters"] if is_lively(adapter)]:
        print()
        print_adapters(lively)
    if status["jobs"]["trainers"]:
        print()
        print_trainers(status["jobs"]["trainers"])


def status_of(server: Server, interval: float) -> dict[str, Any]:
    """Everything that `ps` shows. Takes `interval` seconds, between the two looks that give the speed."""
    first, began = metrics_of(server), time.monotonic()
    time.sleep(interval)
    text = metrics_text(server)
    last, seconds = parse_metrics(text), time.monotonic() - began
    # A counter that shrank belongs to a new engine, and all it says was counted since.
    before, now = (sample.get("tunechat_engine_generated_tokens_total", 0.0) for sample in (first, last))
    readiness = server.send("GET", "/readyz").json()
    models = server.get("/v1/models").get("data", [])
    return {
        "url": server.url,
        "version": server.get("/version").get("version"),
        "state": readiness.get("status") if isinstance(readiness, dict) else None,
        "models": models,
        "adapters": adapters_of(server, models),
        "memory_bytes": int(last.get("tunechat_engine_resident_bytes", 0)),
        "running": int(last.get("tunechat_engine_running", 0)),
        "waiting": int(last.get("tunechat_engine_waiting", 0)),
        "tokens_per_second": (now - before if now >= before else now) / seconds,
        "cache": {
            "total": int(last.get("tunechat_engine_blocks", 0)),
            "used": int(last.get("tunechat_engine_blocks_used", 0)),
            "kept": int(last.get("tunechat_engine_blocks_cached", 0)),
        },
        "jobs": jobs_of(text),
        "restarts": int(last.get("tunechat_engine_restarts_total", 0)),
    }


def _described(model: dict[str, Any]) -> str:
    parts = [str(model["id"])]
    if "quantization" in model:
        parts.append(str(model["quantization"]))
    if "max_model_len" in model:
        parts.append(f"context {model['max_model_len']} tokens")
    if "tool_dialect" in model:
        parts.append(f"tool calls as {model['tool_dialect']}")
    return ", ".join(parts)


def metrics_of(server: Server) -> Mapping[str, float]:
    """The server's metrics; those with labels are summed. Raises what `metrics_text` raises."""
    return parse_metrics(metrics_text(server))


def metrics_text(server: Server) -> str:
    """The server's metrics, as it writes them. Raises what the server refuses the request with."""
    response = server.send("GET", "/metrics")
    if response.is_error:
        from .server import error_of

        raise error_of(response)
    return response.text


def parse_metrics(text: str) -> dict[str, float]:
    """Samples of the Prometheus text format 0.0.4, summed over labels. Raises Unavailable for other text."""
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise Unavailable("the server's /metrics is not in the Prometheus text format")
        samples[match[1]] = samples.get(match[1], 0.0) + float(match[2])
    return samples
