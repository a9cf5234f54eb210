"""Who may come in: nobody without a key, whatever the path, the method or the Host header looks like."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.api import auth
from tunechat.serve.api.auth import ADMIN_PATHS, OPEN_PATHS, KeyRing, sent_key
from tunechat.serve.api.messages.errors import PATHS
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
            error = answer.json["error"]
            code = error["details"]["error_code"] if path in PATHS else error["code"]
            assert code == "invalid_api_key"


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
    assert sent_key(scope) == b"Key"


BEARER, WRONG_BEARER = (b"authorization", b"Bearer " + KEYS[0].encode()), (b"authorization", b"Bearer other-key")
PLAIN, WRONG_PLAIN = (b"x-api-key", KEYS[0].encode()), (b"x-api-key", b"sk-ant-of-somebody-else")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([PLAIN], 200),
        ([WRONG_PLAIN], 401),
        ([(b"x-api-key", b"Bearer " + KEYS[0].encode())], 401),
        ([(b"x-api-key", b" " + KEYS[0].encode() + b" ")], 200),
        ([(b"x-api-key", b"")], 401),
        ([(b"x-api-key", b"k" * 5000)], 401),
        ([(b"x-api-key", "schlüssel".encode())], 401),
        ([PLAIN, PLAIN], 401),
        ([BEARER, WRONG_PLAIN], 200),
        ([WRONG_BEARER, PLAIN], 401),
        ([(b"authorization", b"Basic eA=="), PLAIN], 401),
    ],
)
async def test_the_key_may_come_in_anthropics_header(
    serve: Serve, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    served = await serve(api_keys=KEYS)
    for path in ("/v1/models", "/version"):
        answer = await call(served.app, make_scope("GET", path, [(b"host", b"localhost"), *headers]))
        assert answer.status == status


async def test_a_key_is_one_tenant_in_whichever_header(serve: Serve) -> None:
    served = await serve(api_keys=KEYS)
    for headers in ({"authorization": f"Bearer {KEYS[0]}"}, {"x-api-key": KEYS[0]}):
        await served.client.post("/v1/chat/completions", json=chat(), headers=headers)
    bearer, plain = served.engine.salts
    assert bearer == plain != ""


CLIENT, ADMIN, STRANGER = KEYS[0], "admin-key-9999", "nobodys-key-0000"
ADMIN_ROUTES = [
    ("GET", "/v1/adapters"), ("GET", "/v1/adapters/x"), ("POST", "/v1/adapters/x"), ("DELETE", "/v1/adapters/x"),
    ("GET", "/v1/adapters/x/download"), ("POST", "/v1/adapters/x/load"), ("POST", "/v1/adapters/x/unload"),
    ("POST", "/v1/adapters/x/rollback"), ("POST", "/v1/adapters/x/activate"), ("POST", "/v1/adapters/x/pin"),
    ("POST", "/v1/adapters/x/unpin"), ("POST", "/v1/adapters/x/verify"), ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
]  # fmt: skip
PUBLIC = {"host": "0.0.0.0", "insecure": True}
# Settings, the key that is sent, and what routes of admins and other routes answer when a key may not pass.
MATRIX: list[tuple[dict[str, Any], str | None, int | None, int | None]] = [
    ({}, None, None, None),
    ({}, STRANGER, None, None),
    ({"api_keys": (CLIENT,)}, None, 401, 401),
    ({"api_keys": (CLIENT,)}, STRANGER, 401, 401),
    ({"api_keys": (CLIENT,)}, CLIENT, None, None),
    ({"api_keys": (CLIENT,), "admin_keys": (ADMIN,)}, None, 401, 401),
    ({"api_keys": (CLIENT,), "admin_keys": (ADMIN,)}, STRANGER, 401, 401),
    ({"api_keys": (CLIENT,), "admin_keys": (ADMIN,)}, CLIENT, 403, None),
    ({"api_keys": (CLIENT,), "admin_keys": (ADMIN,)}, ADMIN, None, None),
    ({"api_keys": (CLIENT,), "admin_keys": (CLIENT,)}, CLIENT, None, None),
    ({"admin_keys": (ADMIN,)}, None, 401, None),
    ({"admin_keys": (ADMIN,)}, STRANGER, 401, None),
    ({"admin_keys": (ADMIN,)}, ADMIN, None, None),
    ({"host": "0.0.0.0", "api_keys": (CLIENT,)}, CLIENT, None, None),
    (PUBLIC, None, 403, None),
    (PUBLIC, STRANGER, 403, None),
    (PUBLIC | {"admin_keys": (ADMIN,)}, None, 401, None),
    (PUBLIC | {"admin_keys": (ADMIN,)}, ADMIN, None, None),
]


@pytest.mark.parametrize(("settings", "key", "admin", "other"), MATRIX)
async def test_who_may_change_adapters(
    serve: Serve, tmp_path: Path, settings: dict[str, Any], key: str | None, admin: int | None, other: int | None
) -> None:
    served = await serve(adapter_store=tmp_path, **settings)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}

    async def denied(method: str, path: str) -> int | None:
        answer = await call(served.app, make_scope(method, path, headers))
        if answer.status not in {401, 403}:
            return None
        assert answer.json["error"]["code"] == ("forbidden" if answer.status == 403 else "invalid_api_key")
        return answer.status

    for method, path in ADMIN_ROUTES:
        assert await denied(method, path) == admin, (method, path)
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/metrics"), ("GET", "/no")):
        assert await denied(method, path) == other, (method, path)


async def test_every_route_of_adapters_is_among_those_of_admins(serve: Serve) -> None:
    served = await serve()
    tagged = {
        (method.upper(), path.replace("{adapter}", "x"))
        for path, operations in served.app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "adapters" in operation.get("tags", ())
    }
    assert tagged == set(ADMIN_ROUTES)
    assert all(path.startswith(ADMIN_PATHS) for _, path in tagged)


@pytest.mark.parametrize(
    "path", ["/v1/adapters/", "/v1/adapters//x", "/v1/adaptersx", "/v1/adapters/../adapters", "/v1/load_lora_adapter/"]
)
async def test_no_spelling_of_a_path_gets_around_the_admin_key(serve: Serve, tmp_path: Path, path: str) -> None:
    served = await serve(adapter_store=tmp_path, api_keys=(CLIENT,), admin_keys=(ADMIN,))
    for method in METHODS:
        answer = await call(served.app, make_scope(method, path, {"authorization": f"Bearer {CLIENT}"}))
        assert answer.status == 403
    for other in ("//v1/adapters", "/V1/adapters", "/v1/./adapters", "/v1//adapters", "/v1/%61dapters"):
        answer = await call(served.app, make_scope("GET", other, {"authorization": f"Bearer {CLIENT}"}))
        assert answer.status == 404, other
