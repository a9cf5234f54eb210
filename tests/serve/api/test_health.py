"""What probes are told, from the first moment to the last."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tunechat.serve.contract.errors import ErrorRecord
from tunechat.serve.contract.messages import Loading
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import MODEL, chat


async def test_alive_before_any_model_is_loaded_and_not_ready(serve: Serve) -> None:
    load = asyncio.Event()
    served = await serve({"load": load, "loading": Loading(stage="weights", fraction=0.25)})
    assert (await served.client.get("/livez")).status_code == 200
    ready = await served.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {"status": "starting", "stage": "weights", "fraction": 0.25}
    early = await served.client.post("/v1/chat/completions", json=chat())
    assert early.status_code == 503
    assert early.json()["error"]["code"] == "model_loading"
    assert int(early.headers["retry-after"]) > 0
    load.set()
    await served.gateway.settled.wait()
    assert (await served.client.get("/readyz")).json() == {"status": "ready"}
    assert (await served.client.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_an_engine_that_restarts_is_not_ready_but_alive(serve: Serve) -> None:
    served = await serve()
    served.engine.state = "restarting"
    served.engine.failure = ErrorRecord(code="engine_failed", message="x", http_status=503)
    ready = await served.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "restarting")
    assert (await served.client.get("/livez")).status_code == 200
    assert (await served.client.post("/v1/chat/completions", json=chat())).status_code == 503
    served.engine.state = "ready"
    assert (await served.client.get("/readyz")).status_code == 200


async def test_an_engine_that_is_given_up_is_dead(serve: Serve) -> None:
    served = await serve()
    served.engine.state = "failed"
    served.engine.failure = ErrorRecord(code="model_error", message="no such file: /x/y")
    for path in ("/livez", "/readyz"):
        response = await served.client.get(path)
        assert (response.status_code, response.json()["status"]) == (503, "failed")
        assert "/x/y" not in response.text
    response = await served.client.post("/v1/chat/completions", json=chat())
    assert response.json()["error"]["code"] == "model_failed"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/metrics"])
async def test_probes_that_ask_for_the_head_are_told_the_same(serve: Serve, path: str) -> None:
    served = await serve()
    head, whole = await served.client.head(path), await served.client.get(path)
    assert (head.status_code, head.headers["content-type"]) == (whole.status_code, whole.headers["content-type"])
    assert (await served.client.post(path)).status_code == 405
    served.engine.state = "restarting"
    assert (await served.client.head(path)).status_code == (503 if path == "/readyz" else 200)


async def test_version(serve: Serve) -> None:
    served = await serve()
    version: Any = (await served.client.get("/version")).json()["version"]
    assert version.count(".") == 2


async def test_metrics_tell_requests_tokens_and_the_engine(serve: Serve) -> None:
    served = await serve({"cached_tokens": 2})
    await served.client.post("/v1/chat/completions", json=chat())
    await served.client.post("/v1/chat/completions", json=chat(n=0))
    await served.client.get("/nothing/here")
    response = await served.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    requests = 'tunechat_requests_total{{method="{}",route="{}",status="{}"}}'
    assert float(lines[requests.format("POST", "/v1/chat/completions", 200)]) == 1
    assert float(lines[requests.format("POST", "/v1/chat/completions", 400)]) == 1
    assert float(lines[requests.format("GET", "unmatched", 404)]) == 1
    assert float(lines['tunechat_tokens_total{kind="completion"}']) == 13
    assert float(lines['tunechat_tokens_total{kind="cached_prompt"}']) == 2
    assert float(lines["tunechat_first_token_seconds_count"]) == 1
    assert float(lines["tunechat_next_token_seconds_count"]) == 11
    for name in ("ready", "running", "waiting", "blocks", "blocks_used", "generated_tokens_total"):
        assert f"tunechat_engine_{name}" in lines
    for name in ("compiled_total", "reused_total", "refused_total"):
        assert float(lines[f"tunechat_engine_grammars_{name}"]) == 0
    assert {"tunechat_engine_running_grammars", "tunechat_engine_grammar_compile_seconds_total"} <= lines.keys()
    assert any(name.startswith("tunechat_build_info") for name in lines)


async def test_metrics_of_two_servers_do_not_meet(serve: Serve) -> None:
    first, second = await serve(), await serve()
    await first.client.post("/v1/chat/completions", json=chat())
    assert 'kind="completion"} 13.0' in (await first.client.get("/metrics")).text
    assert 'kind="completion"' not in (await second.client.get("/metrics")).text


async def test_strange_methods_make_no_new_series(serve: Serve) -> None:
    served = await serve()
    for method in ("BREW", "PROPFIND"):
        await served.client.request(method, "/v1/models")
    text = (await served.client.get("/metrics")).text
    assert "BREW" not in text
    assert 'method="OTHER"' in text


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}"])
async def test_models_before_the_engine_is_ready(serve: Serve, path: str) -> None:
    served = await serve({"load": asyncio.Event()})
    assert (await served.client.get(path)).status_code == 200
