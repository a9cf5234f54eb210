"""A server that needs no key is not for web pages."""

from __future__ import annotations

import pytest

from tunechat.serve.api.hosts import host_name
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import call, make_scope

JSON = {"content-type": "application/json"}
GOOD_HOSTS = ["localhost", "localhost:8000", "127.0.0.1:9", "[::1]:8000", "127.8.9.1", "LOCALHOST"]
BAD_HOSTS = ["evil.test", "evil.test:8000", "localhost.evil.test", "127.0.0.1.evil.test", "", "localhost@evil.test"]
BAD_HOSTS += ["evil.test/localhost", "127.evil.test", "localhost:x", "[::1", "192.168.1.5:8000"]


@pytest.mark.parametrize("host", GOOD_HOSTS)
async def test_own_names_are_answered(serve: Serve, host: str) -> None:
    served = await serve()
    assert (await call(served.app, make_scope("GET", "/v1/models", {"host": host}))).status == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
@pytest.mark.parametrize("path", ["/v1/models", "/livez", "/metrics"])
async def test_strange_names_are_refused(serve: Serve, host: str, path: str) -> None:
    served = await serve()
    answer = await call(served.app, make_scope("GET", path, {"host": host}))
    assert answer.status == 400
    assert answer.json["error"]["code"] == "unknown_host"


async def test_no_host_and_two_hosts_are_refused(serve: Serve) -> None:
    served = await serve()
    for headers in ([], [(b"host", b"localhost"), (b"host", b"evil.test")]):
        assert (await call(served.app, make_scope("GET", "/v1/models", headers))).status == 400


async def test_listed_names_are_answered(serve: Serve) -> None:
    served = await serve(allowed_hosts=("chat.example",))
    for host, status in (("chat.example:8000", 200), ("localhost", 200), ("other.example", 400)):
        assert (await call(served.app, make_scope("GET", "/v1/models", {"host": host}))).status == status


@pytest.mark.parametrize(
    "origin", ["http://evil.test", "https://localhost.evil.test", "null", "", "file://", "x://localhost"]
)
async def test_other_sites_may_not_write(serve: Serve, origin: str) -> None:
    served = await serve()
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = await call(served.app, make_scope(method, "/v1/completions", JSON | {"origin": origin}), b"{}")
        assert answer.status == 403
        assert not served.engine.submitted


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8000"])
async def test_pages_of_this_machine_may(serve: Serve, origin: str) -> None:
    served = await serve()
    answer = await call(served.app, make_scope("POST", "/v1/completions", JSON | {"origin": origin}), b"{}")
    assert answer.status == 400
    assert answer.json["error"]["param"] == "model"


async def test_no_answer_invites_other_sites(serve: Serve) -> None:
    served = await serve()
    for method in ("GET", "POST", "OPTIONS"):
        headers = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
        answer = await call(served.app, make_scope(method, "/v1/models", headers))
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_with_keys_any_name_will_do(serve: Serve) -> None:
    served = await serve(api_keys=("some-key-123",), host="0.0.0.0")
    headers = {"host": "chat.example", "authorization": "Bearer some-key-123", "origin": "https://chat.example"}
    assert (await call(served.app, make_scope("GET", "/v1/models", headers))).status == 200


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("a:1", "a"),
        ("[::1]:1", "::1"),
        ("a", "a"),
        ("a/b", None),
        ("a?b", None),
        ("u@a", None),
        ("a:b", None),
        ("", None),
    ],
)
def test_host_name(authority: str, name: str | None) -> None:
    assert host_name(authority) == name
