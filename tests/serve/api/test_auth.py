"""Who may come in: nobody without a key, whatever the path, the method or the Host header looks like."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tunechat.serve.api import auth
from tunechat.serve.api.auth import OPEN_PATHS, KeyRing, bearer_key
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import call, chat, make_scope

KEYS = ("first-key-1234", "second-key-5678")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def routes_of(app: Any) -> set[str]:
    return set(app.openapi()["paths"]) | {"/openapi.json"}


async def test_every_route_and_method_needs_a_key(serve: Serve) -> None:
    served = await serve(api_keys=KEYS)
    paths = routes_of(served.app) - OPEN_PATHS
    assert {"/metrics", "/v1/chat/completions", "/tokenize", "/version"} <= paths
    for path in [*paths, "/docs", "/redoc", "/nothing", "/", ""]:
        for method in METHODS:
            answer = await call(served.app, make_scope(method, path))
            assert answer.status == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models", "/v1/../livez", "/livez/", "/livez/..", "/livez%2f", "/LIVEZ", "/Livez", "/livez?x", "/livez#",
        "/%6civez", "/livez\x00", "/readyz;a=b", "livez", "http://localhost/livez", "/v1/models/../../livez",
        "/.//livez", "/readyz/../v1/models",
    ],
)  # fmt: skip
async def test_only_the_exact_probe_paths_are_open(serve: Serve, path: str) -> None:
    served = await serve(api_keys=KEYS)
    assert (await call(served.app, make_scope("GET", path))).status == 401


@pytest.mark.parametrize(
    "host", ["localhost/livez?", "localhost/readyz#", "a@b", "livez", "", "localhost:80/livez?x=", "/livez", "x\\livez"]
)
async def test_host_header_chooses_no_path(serve: Serve, host: str) -> None:
    served = await serve(api_keys=KEYS)
    for path in ("/v1/models", "/metrics"):
        assert (await call(served.app, make_scope("GET", path, {"host": host}))).status == 401


async def test_probes_need_no_key(serve: Serve) -> None:
    served = await serve(api_keys=KEYS)
    assert sorted(OPEN_PATHS) == ["/livez", "/readyz"]
    for path in OPEN_PATHS:
        assert (await call(served.app, make_scope("GET", path))).status == 200


@pytest.mark.parametrize("key", KEYS)
async def test_every_key_opens(serve: Serve, key: str) -> None:
    served = await serve(api_keys=KEYS)
    response = await served.client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        KEYS[0],
        f"Basic {KEYS[0]}",
        f"Bearer {KEYS[0][:-1]}",
        f"Bearer {KEYS[0]}x",
        "Bearer é",
        f"Bearer {KEYS[0].upper()}",
        f"Bearer {KEYS[0]},{KEYS[1]}",
        "Bearer " + "k" * 5000,
    ],
)
async def test_other_authorisations_do_not(serve: Serve, value: str) -> None:
    served = await serve(api_keys=KEYS)
    headers = [(b"host", b"localhost"), (b"authorization", value.encode("latin-1"))]
    assert (await call(served.app, make_scope("GET", "/v1/models", headers))).status == 401


async def test_two_authorisations_are_none(serve: Serve) -> None:
    served = await serve(api_keys=KEYS)
    good = (b"authorization", b"Bearer " + KEYS[0].encode())
    assert (await call(served.app, make_scope("GET", "/v1/models", [good, good]))).status == 401


async def test_websockets_are_closed(serve: Serve) -> None:
    served = await serve()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await served.app(make_scope("GET", "/v1/models") | {"type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_keys_part_the_prefix_cache(serve: Serve) -> None:
    served = await serve(api_keys=KEYS)
    for key in (*KEYS, KEYS[0]):
        await served.client.post("/v1/chat/completions", json=chat(), headers={"authorization": f"Bearer {key}"})
    first, second, again = served.engine.salts
    assert first == again != second
    assert all(salt and not any(key in salt for key in KEYS) for salt in served.engine.salts)


async def test_without_keys_the_cache_is_shared_unless_a_salt_is_sent(serve: Serve) -> None:
    served = await serve()
    for fields in ({}, {"cache_salt": "a"}, {"cache_salt": "b"}):
        await served.client.post("/v1/chat/completions", json=chat(**fields))
    plain, one, other = served.engine.salts
    assert plain == ""
    assert len({plain, one, other}) == 3


def test_keys_are_not_kept_and_are_compared_in_constant_time() -> None:
    ring = KeyRing(KEYS)
    assert not any(key in repr(vars(ring)) for key in KEYS)
    assert "compare_digest" in inspect.getsource(auth.KeyRing.tenant)
    assert ring.tenant(KEYS[0].encode()) != ring.tenant(KEYS[1].encode())
    assert ring.tenant(b"") is None


def test_scheme_is_case_blind_and_the_key_is_not() -> None:
    scope = make_scope("GET", "/", [(b"authorization", b"bEaReR  Key ")])
    assert bearer_key(scope) == b"Key"
