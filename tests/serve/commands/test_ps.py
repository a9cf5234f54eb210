"""`tunechat ps` from what a server says of itself."""

from __future__ import annotations

import json
import re
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
    assert "tiny, context 64 tokens, tool calls as hermes" in done.out and "3.0 MiB" in done.out


def version(id: str, **more: object) -> dict[str, object]:
    told = {"state": "loaded", "residency": "disk", "memory_bytes": 0, "requests": 0, "running": 0, "waiting": 0}
    return {"id": id, "is_current": False, "is_pinned": False, **told, **more}


ADAPTERS = {
    "object": "list",
    "data": [
        {"name": "a", "versions": [version("a@1", state="stored"), version("a@2", state="draining", requests=1)]},
        {
            "name": "b",
            "versions": [
                version("b@1", residency="device", memory_bytes=3 << 20, running=2, waiting=1, is_current=True),
                version("b@2", residency="host", memory_bytes=1 << 20),
                version("b@3"),
                version("b@4", is_pinned=True),
            ],
        },
    ],
}


def test_adapters_are_shown_with_place_memory_and_requests(tunechat: Callable[..., Done], served: FakeServer) -> None:
    served.answers["/metrics"] = httpx.Response(200, text=metrics(0))
    served.answers["/v1/adapters"] = httpx.Response(200, json=ADAPTERS)
    table = tunechat("ps", "--interval", "0.1").out
    lines = {line.split()[0]: line.split()[1:] for line in table.splitlines() if "@" in line}
    assert lines == {
        "a@2": ["draining", "disk", "1", "0", "0"],
        "b@1": ["loaded", "slot", "3.0", "MiB", "0", "2", "1", "current"],
        "b@2": ["loaded", "host", "1.0", "MiB", "0", "0", "0"],
        "b@4": ["loaded", "disk", "0", "0", "0", "pinned"],
    }
    assert "5 served: 1 in slots, 1 in host memory, 3 on disk, 4.0 MiB" in table
    status = json.loads(tunechat("ps", "--json", "--interval", "0.1").out)
    assert [one["id"] for one in status["adapters"]] == ["a@2", "b@1", "b@2", "b@3", "b@4"]


def test_a_key_that_may_not_look_still_sees_the_names(tunechat: Callable[..., Done], served: FakeServer) -> None:
    served.answers["/metrics"] = httpx.Response(200, text=metrics(0))
    served.answers["/v1/adapters"] = refusal(403, "forbidden", "an admin key may")
    data = [
        {"id": "tiny", "parent": None, "root": "tiny", "state": "loaded"},
        {"id": "support", "parent": "tiny", "root": "support@1", "state": "loaded"},
        {"id": "support@1", "parent": "tiny", "root": "support@1", "state": "loaded"},
    ]
    served.answers["/v1/models"] = httpx.Response(200, json={"object": "list", "data": data})
    table = tunechat("ps", "--interval", "0.1").out
    assert "support@1  loaded" in table and re.search(r"adapters +1 served *\n", table)
    assert table.count("support") == 1


def test_admin_key_is_sent_where_there_is_one(
    tunechat: Callable[..., Done], served: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.answers["/metrics"] = httpx.Response(200, text=metrics(0))
    monkeypatch.setenv("TUNECHAT_API_KEYS", "ordinary-key")
    monkeypatch.setenv("TUNECHAT_ADMIN_KEYS", "admin-key-1")
    assert tunechat("ps", "--interval", "0.1").code == 0
    assert tunechat("ps", "--interval", "0.1", "--api-key", "typed-key-1").code == 0
    assert {request.headers["authorization"] for request in served.requests} == {
        "Bearer admin-key-1",
        "Bearer typed-key-1",
    }


def test_refusal_is_one_line(tunechat: Callable[..., Done], served: FakeServer) -> None:
    served.answers["/metrics"] = refusal(401, "invalid_api_key", "wrong key")
    assert tunechat("ps") == Done(1, "", "error: wrong key\n")


def test_absent_server_is_one_line(tunechat: Callable[..., Done]) -> None:
    done = tunechat("ps", "--url", "http://127.0.0.1:1")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no server answers at http://127.0.0.1:1;")
