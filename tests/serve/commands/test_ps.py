"""`tunechat ps` from what a server says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest

from tunechat.serve.commands.ps import parse_metrics
from tunechat.serve.contract.errors import Unavailable

from .conftest import Done, FakeServer, refusal


def metrics(generated: int) -> str:
    registry = CollectorRegistry()
    for name, value in (
        ("ready", 1),
        ("running", 2),
        ("waiting", 1),
        ("blocks", 100),
        ("blocks_used", 40),
        ("blocks_cached", 7),
        ("resident_bytes", 3 << 20),
    ):
        Gauge(f"tunechat_engine_{name}", name, registry=registry).set(value)
    for name, value in (("generated_tokens", generated), ("restarts", 1)):
        Counter(f"tunechat_engine_{name}", name, registry=registry).inc(value)
    return generate_latest(registry).decode()


def test_samples_are_read_and_summed_over_labels() -> None:
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests {of} all.", ("route",), registry=registry)
    counter.labels("/a b} 7").inc(2)
    counter.labels('quote"d').inc(3)
    assert parse_metrics(generate_latest(registry).decode())["requests_total"] == 5


@pytest.mark.parametrize("text", ["<html>", "name", "a b c"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(Unavailable, match="Prometheus"):
        parse_metrics(text)


def test_shows_what_runs(tunechat: Callable[..., Done], served: FakeServer) -> None:
    served.answers["/metrics"] = (httpx.Response(200, text=metrics(count)) for count in (100, 150))
    done = tunechat("ps", "--json", "--interval", "0.1")
    assert done.code == 0, done.err
    status = json.loads(done.out)
    assert [model["id"] for model in status["models"]] == ["tiny"]
    assert (status["running"], status["waiting"], status["memory_bytes"]) == (2, 1, 3 << 20)
    assert status["cache"] == {"total": 100, "used": 40, "kept": 7}
    assert 0 < status["tokens_per_second"] <= 500
    assert (status["state"], status["version"], status["restarts"]) == ("ready", "1.2.3", 1)


def test_table_names_the_model(tunechat: Callable[..., Done], served: FakeServer) -> None:
    served.answers["/metrics"] = httpx.Response(200, text=metrics(0))
    done = tunechat("ps", "--interval", "0.1")
    assert done.code == 0
    assert "tiny, context 64 tokens" in done.out and "3.0 MiB" in done.out


def test_refusal_is_one_line(tunechat: Callable[..., Done], served: FakeServer) -> None:
    served.answers["/metrics"] = refusal(401, "invalid_api_key", "wrong key")
    assert tunechat("ps") == Done(1, "", "error: wrong key\n")


def test_absent_server_is_one_line(tunechat: Callable[..., Done]) -> None:
    done = tunechat("ps", "--url", "http://127.0.0.1:1")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no server answers at http://127.0.0.1:1;")
