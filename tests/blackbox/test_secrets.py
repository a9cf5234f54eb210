"""What must not get out: keys and prompts in logs and metrics, ports beyond the one, and anything without a key."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tunechat.tests.blackbox.conftest import Start
from tunechat.tests.blackbox.server import CONTROL, LEAKS, MODEL, Server, serving, wait_until
from tunechat.tests.blackbox.streams import ENDLESS, Stream

OPERATIONS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/messages"),
    ("GET", "/v1/models"),
    ("GET", "/v1/tools"),
    ("GET", f"/v1/models/{MODEL}"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/v1/models"),
    ("GET", "/livez/"),
    ("GET", "/LIVEZ"),
    ("GET", "//livez"),
]


def use_in_every_way(server: Server, canary: str) -> None:
    """Sends `canary` wherever a request can carry text, in requests that succeed and requests that fail."""
    http = server.http
    chat = {**CONTROL, "messages": [{"role": "user", "content": canary}], "max_tokens": 2}
    good: list[tuple[str, Any]] = [
        ("/v1/chat/completions", {**chat, "user": canary, "metadata": {"note": canary}, "stop": canary}),
        ("/v1/chat/completions", {**chat, "stream": True, "cache_salt": canary}),
        ("/v1/chat/completions", {**chat, "tools": [{"function": {"name": canary, "description": canary}}]}),
        ("/v1/chat/completions", {**chat, "structured_outputs": {"choice": [canary]}}),
        ("/v1/completions", {"model": MODEL, "prompt": [canary, canary], "max_tokens": 2, "echo": True}),
        ("/v1/messages", {**chat, "system": canary, "metadata": {"user_id": canary}, "stop_sequences": [canary]}),
        ("/v1/messages/count_tokens", {"model": MODEL, "messages": chat["messages"]}),
        ("/tokenize", {"prompt": canary}),
    ]
    bad: list[tuple[str, Any]] = [
        ("/v1/chat/completions", {**chat, "model": canary}),
        ("/v1/chat/completions", {**chat, "temperature": canary}),
        ("/v1/chat/completions", {**chat, "logit_bias": {canary[:8]: 1}}),
        ("/v1/chat/completions", {**chat, "messages": [{"role": canary, "content": canary}]}),
        ("/v1/chat/completions", {**chat, "tools": [{"function": {"name": f"{canary} x"}}]}),
        ("/v1/chat/completions", {**chat, "structured_outputs": {"grammar": f"start: {canary}"}}),
        ("/v1/chat/completions", {**chat, "guided_grammar": f'start: "{canary}" x', "stream": True}),
        ("/v1/chat/completions", {**chat, "guided_json": {"properties": {canary: {"not": {}}}}}),
        ("/v1/completions", {"model": MODEL, "prompt": canary * 3000, "max_tokens": 2}),
        ("/v1/messages", {**chat, "model": canary}),
        ("/v1/messages", {**chat, "messages": [{"role": "user", "content": [{"type": canary[:60]}]}]}),
        ("/tokenize", {"prompt": canary, canary: canary}),
        ("/" + canary, {}),
    ]
    for path, body in good:
        assert http.post(path, json=body).status_code == 200
    for path, body in bad:
        assert 400 <= http.post(path, json=body).status_code < 500
    for content in (f'{{"prompt": "{canary}', f'"{canary}"'):
        answer = http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
    assert http.get(f"/v1/models/{canary}", params={"q": canary}, headers={"X-Note": canary}).status_code == 404


def test_keys_and_prompts_are_never_logged(start: Start) -> None:
    key, prompt, wrong = (f"canary-{name}-{secrets.token_hex(12)}" for name in ("key", "prompt", "wrong"))
    server = start("--log-level", "debug", key=key)
    use_in_every_way(server, prompt)
    for header in (f"Bearer {wrong}", f"Basic {wrong}", wrong):
        assert httpx.get(f"{server.url}/v1/models", headers={"Authorization": header}).status_code == 401
    assert httpx.get(f"{server.url}/v1/models", headers={"x-api-key": wrong}).status_code == 401
    assert httpx.get(f"{server.url}/v1/models", headers={"x-api-key": key}).status_code == 200
    body = {**ENDLESS, "prompt": prompt, "max_tokens": 500}
    with Stream(server, body) as left:
        left.read_until(b'"text"')
    with Stream(server, body) as killed:
        killed.read_until(b'"text"')
        server.engine.kill()
        killed.read_to_end()
    wait_until(lambda: server.is_ready, 60, "/readyz is green again")
    metrics = server.http.get("/metrics").text
    assert server.end() == 0
    before, _, rest = server.log.read_text().partition("Ready: ")
    ready, _, log = rest.partition("\n")
    assert ready and key not in ready
    log = before + log
    assert log.count('"message": "request"') > 15
    for canary in (key, prompt, wrong, prompt[:15], wrong[:15]):
        assert canary not in log
        assert canary not in metrics
    assert "authorization" not in log.lower()
    assert "x-api-key" not in log.lower()


def test_keys_are_in_no_command_line_of_the_engine(start: Start) -> None:
    key = f"canary-{secrets.token_hex(12)}"
    engine = start(key=key).engine
    assert not any(key in word for word in engine.cmdline())


def test_one_port_listens_and_nothing_else(server: Server) -> None:
    """Over TCP, UDP and named sockets; the pair between gateway and engine has no name."""
    processes = (server.gateway, server.engine)
    inet = [one for process in processes for one in process.net_connections("inet")]
    listening = [one.laddr for one in inet if one.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [server.address]
    assert not [one for one in inet if one.type == socket.SOCK_DGRAM]
    assert not [one.laddr for process in processes for one in process.net_connections("unix") if one.laddr]


def test_nothing_connects_to_anywhere(server: Server) -> None:
    inet = server.engine.net_connections("inet")
    inet += [one for one in server.gateway.net_connections("inet") if one.laddr.port != server.address[1]]
    assert not inet


@pytest.fixture(scope="module")
def guarded(default_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("guarded") / "server.log"
    keys = "first-key-0000,second-key-000"
    with serving(default_home, log, key=keys, max_context=512, cache_bytes="32MiB") as server:
        yield server


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("host", ["localhost", "localhost/livez?", "a@b", "livez"])
def test_without_a_key_only_the_probes_answer(guarded: Server, method: str, path: str, host: str) -> None:
    for key in (b"", b"Authorization: Bearer \r\n", b"Authorization: Bearer first-key-000\r\n"):
        raw = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n".encode() + key + b"\r\n"
        with socket.create_connection(guarded.address, timeout=10) as connection:
            connection.sendall(raw)
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        assert b"access-control" not in answer.lower()
        assert not LEAKS.search(answer)


def test_every_key_opens_and_keys_share_no_cache(guarded: Server) -> None:
    cached = []
    for key in ("first-key-0000", "first-key-0000", "second-key-000"):
        with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as client:
            talk: Any = [{"role": "user", "content": "The same words, long enough for a few blocks of the cache. " * 3}]
            reply = client.chat.completions.create(model=MODEL, messages=talk, max_tokens=2, temperature=0)
            assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
            cached.append(reply.usage.prompt_tokens_details.cached_tokens or 0)
    assert cached[0] == 0 and cached[1] > 0 and cached[2] == 0
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="first-key-000", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    for path in ("/livez", "/readyz"):
        assert httpx.get(guarded.url + path).status_code == 200
