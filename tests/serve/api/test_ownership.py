"""Whose adapters are: for another key they do not exist, whatever it tries; an admin key sees and changes them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tunechat.serve.adapters.tuned_names import checkpoints_name, step_label, tuned_name
from tunechat.serve.api.auth import tenant_of
from tunechat.tests.serve.api.adapter_files import adapter_files, write_adapter, zipped
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import MODEL, chat, completion

OWNER, OTHER, ADMIN = "owner-key-1234", "other-key-5678", "admin-key-9012"
JOB = "ftjob-0123456789abcdef01234567"
NAME, ABSENT = "mine", "none"
CHECKPOINTS = checkpoints_name(NAME, JOB)
TUNED, STEP = tuned_name(MODEL, NAME, JOB), tuned_name(MODEL, NAME, JOB, 10)
MODELS = (NAME, f"{NAME}@1", f"{NAME}@2", TUNED, STEP, CHECKPOINTS, f"{CHECKPOINTS}@1")
ADAPTERS = (NAME, f"{NAME}@1", CHECKPOINTS, f"{CHECKPOINTS}@1")


@dataclass(frozen=True)
class Verb:
    """A request about `model`, in its path or in its body."""

    method: str
    path: str
    body: Any = None

    async def ask(self, served: Served, key: str, model: str) -> httpx.Response:
        body = filled(self.body, model)
        path = self.path.replace("{}", model)
        return await served.client.request(self.method, path, json=body, headers={"authorization": f"Bearer {key}"})


def filled(body: Any, model: str) -> Any:
    if isinstance(body, dict):
        return {key: filled(value, model) for key, value in body.items()}
    if isinstance(body, list):
        return [filled(value, model) for value in body]
    return model if body == "{}" else body


HI = [{"role": "user", "content": "Hi"}]
USES = (
    Verb("POST", "/v1/chat/completions", chat(model="{}")),
    Verb("POST", "/v1/chat/completions", chat(model="{}", stream=True)),
    Verb("POST", "/v1/chat/completions", chat(adapters=[{"name": "{}", "weight": 0.5}])),
    Verb("POST", "/v1/completions", completion(model="{}")),
    Verb("POST", "/v1/completions", completion(model=MODEL, adapters=[{"name": "{}"}])),
    Verb("POST", "/v1/embeddings", {"model": "{}", "input": "Hi"}),
    Verb("POST", "/v1/messages", {"model": "{}", "messages": HI, "max_tokens": 9}),
    Verb("POST", "/v1/messages/count_tokens", {"model": "{}", "messages": HI}),
    Verb("POST", "/v1/responses", {"model": "{}", "input": "Hi", "store": False}),
    Verb("POST", "/tokenize", {"model": "{}", "prompt": "Hi"}),
    Verb("POST", "/detokenize", {"model": "{}", "tokens": [65]}),
    Verb("GET", "/v1/models/{}"),
)
READS = (
    Verb("GET", "/v1/adapters/{}"),
    Verb("GET", "/v1/adapters/{}/download"),
    Verb("POST", "/v1/adapters/{}/verify"),
)
CHANGES = (
    *(Verb("POST", f"/v1/adapters/{{}}/{verb}") for verb in ("load", "unload", "rollback", "activate", "pin", "unpin")),
    Verb("POST", "/v1/unload_lora_adapter", {"lora_name": "{}"}),
    Verb("DELETE", "/v1/adapters/{}"),
)


def shown(response: httpx.Response, name: str = ABSENT) -> tuple[int, str]:
    """What a client learns: status and body, without the request's own id."""
    return response.status_code, re.sub(r"req_\w+", "", response.text).replace(name, ABSENT)


@pytest.fixture(params=["keys", "admin"])
async def served(serve: Serve, tmp_path: Path, request: pytest.FixtureRequest) -> Served:
    """Two versions of an adapter of OWNER, the newer one made by a job, and a checkpoint of that job; and an adapter
    of everybody's."""
    admins = (ADMIN,) if request.param == "admin" else ()
    made = await serve(adapter_store=tmp_path / "store", api_keys=(OWNER, OTHER), admin_keys=admins)
    adapters, owner = made.gateway.adapters, tenant_of(OWNER)
    await adapters.publish(NAME, write_adapter(tmp_path / "1", 1), owner=owner)
    await adapters.publish(NAME, write_adapter(tmp_path / "2", 2), owner=owner, label=JOB)
    await adapters.add_checkpoint(CHECKPOINTS, write_adapter(tmp_path / "3", 3), owner=owner, label=step_label(10))
    await adapters.publish("shared", write_adapter(tmp_path / "4", 4))
    return made


@pytest.fixture
def has_admin(served: Served) -> bool:
    return bool(served.gateway.settings.admin_keys)


@pytest.fixture
def unchanged(served: Served) -> Iterator[None]:
    """Fails a test that has changed anything."""
    before = served.gateway.adapters.store.all(), served.gateway.adapters.roster.all()
    yield
    assert (served.gateway.adapters.store.all(), served.gateway.adapters.roster.all()) == before


@pytest.mark.usefixtures("unchanged")
async def test_for_another_key_no_model_of_it_exists(served: Served) -> None:
    for model in MODELS:
        for verb in (*USES, Verb("DELETE", "/v1/models/{}")):
            answer = await verb.ask(served, OTHER, model)
            absent = await verb.ask(served, OTHER, model.replace(NAME, ABSENT))
            assert answer.status_code == 404, (verb, model)
            assert shown(answer, NAME) == shown(absent), (verb, model)


@pytest.mark.usefixtures("unchanged")
async def test_for_another_key_no_adapter_of_it_exists(served: Served, has_admin: bool) -> None:
    for adapter in ADAPTERS:
        for verb in (*READS, *CHANGES):
            answer = await verb.ask(served, OTHER, adapter)
            absent = await verb.ask(served, OTHER, adapter.replace(NAME, ABSENT))
            # Where there are admin keys no other key may ask for adapters at all, whichever it names.
            assert answer.status_code == (403 if has_admin else 404), (verb, adapter)
            assert shown(answer, NAME) == shown(absent), (verb, adapter)


async def test_lists_show_another_key_nothing_of_it(served: Served, has_admin: bool) -> None:
    async def ids(key: str, path: str) -> list[str]:
        headers = {"authorization": f"Bearer {key}"}
        return [one["id"] for one in (await served.client.get(path, headers=headers)).json()["data"]]

    shared = ["shared", "shared@1"]
    assert await ids(OTHER, "/v1/models") == [MODEL, *shared]
    mine = [MODEL, NAME, f"{NAME}@2", f"{NAME}@1", *shared, TUNED]
    assert await ids(OWNER, "/v1/models") == mine
    if has_admin:
        assert await ids(ADMIN, "/v1/models") == mine
        assert await ids(ADMIN, "/v1/adapters") == [NAME, CHECKPOINTS, "shared"]
    else:
        assert await ids(OWNER, "/v1/adapters") == [NAME, CHECKPOINTS, "shared"]
        assert await ids(OTHER, "/v1/adapters") == ["shared"]


@pytest.mark.parametrize("key", [OWNER, ADMIN])
async def test_its_own_key_and_an_admins_use_all_of_it(served: Served, has_admin: bool, key: str) -> None:
    if key == ADMIN and not has_admin:
        return
    meant = {NAME: f"{NAME}@2", TUNED: f"{NAME}@2", STEP: f"{CHECKPOINTS}@1", CHECKPOINTS: f"{CHECKPOINTS}@1"}
    for model in MODELS:
        for verb in USES:
            answer = await verb.ask(served, key, model)
            assert answer.status_code == 200, (verb, model, answer.text)
        answer = await USES[0].ask(served, key, model)
        assert answer.json()["model"] == answer.headers["x-tunechat-adapter"] == meant.get(model, model)
        described = (await USES[-1].ask(served, key, model)).json()
        assert (described["id"], described["root"]) == (model, meant.get(model, model))


async def test_who_may_change_adapters_changes_its_own(served: Served, has_admin: bool) -> None:
    key = ADMIN if has_admin else OWNER
    for verb in READS:
        for adapter in ADAPTERS:
            assert (await verb.ask(served, key, adapter)).status_code == 200, (verb, adapter)
    record = (await READS[0].ask(served, key, f"{NAME}@2")).json()
    assert record["labels"] == [JOB]
    assert (await READS[0].ask(served, key, NAME)).json()["owner"] == tenant_of(OWNER)
    for verb, adapter in zip(CHANGES, (NAME, f"{NAME}@1", NAME, *[f"{NAME}@2"] * 3, NAME, NAME), strict=True):
        answer = await verb.ask(served, key, adapter)
        assert answer.status_code == 200, (verb, answer.text)
    assert served.gateway.adapters.check_free(NAME, tenant_of(OTHER)) == tenant_of(OTHER)


async def test_a_name_of_another_key_is_taken(served: Served, has_admin: bool, tmp_path: Path) -> None:
    async def upload(name: str, key: str, seed: int) -> httpx.Response:
        headers = {"content-type": "application/zip", "authorization": f"Bearer {key}"}
        content = zipped(adapter_files(seed))
        return await served.client.post(f"/v1/adapters/{name}", content=content, headers=headers)

    answer = await upload(NAME, ADMIN if has_admin else OTHER, 9)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "name_taken")
    assert served.gateway.adapters.store.of(NAME).current == 2
    if has_admin:
        assert (await upload("new", OTHER, 9)).status_code == 403
        assert (await upload("new", ADMIN, 9)).status_code == 200
        assert served.gateway.adapters.store.of("new").owner == ""
        # What is everybody's is changed by admins; a job of another key must not get around that.
        with pytest.raises(Exception, match="taken"):
            served.gateway.adapters.check_free("shared", tenant_of(OTHER))
    else:
        assert (await upload("new", OTHER, 9)).status_code == 200
        assert served.gateway.adapters.store.of("new").owner == tenant_of(OTHER)
        assert (await upload("shared", OTHER, 9)).json()["id"] == "shared@2"
        assert served.gateway.adapters.store.of("shared").owner == ""


async def test_owners_and_labels_outlast_a_restart(served: Served, serve: Serve) -> None:
    settings = served.gateway.settings
    again = await serve(adapter_store=settings.adapter_store, api_keys=settings.api_keys, model_aliases=("org/tiny",))
    for model, meant in ((TUNED, f"{NAME}@2"), (STEP, f"{CHECKPOINTS}@1"), (f"ft:org/tiny{TUNED[7:]}", f"{NAME}@2")):
        assert (await USES[0].ask(again, OWNER, model)).json()["model"] == meant
        assert (await USES[0].ask(again, OTHER, model)).status_code == 404
    assert (await USES[0].ask(again, OWNER, TUNED.replace(MODEL, "else"))).status_code == 404


async def test_a_server_of_ones_own_without_keys_shows_all(served: Served, serve: Serve) -> None:
    store = served.gateway.settings.adapter_store
    for settings, status in (({}, 200), ({"host": "0.0.0.0", "insecure": True, "allowed_hosts": ("*",)}, 404)):
        again = await serve(adapter_store=store, **settings)
        for model in MODELS:
            assert (await USES[0].ask(again, OTHER, model)).status_code == status
    assert (await Verb("DELETE", "/v1/models/{}").ask(again, OTHER, "shared")).status_code == 404


async def test_a_fine_tuned_model_is_removed_by_whoever_made_it(served: Served) -> None:
    delete = Verb("DELETE", "/v1/models/{}")
    for model in ("shared", MODEL):
        assert (await delete.ask(served, OWNER, model)).status_code == 404
    answer = await delete.ask(served, OWNER, TUNED)
    assert answer.json() == {"id": TUNED, "object": "model", "deleted": True}
    assert (await USES[0].ask(served, OWNER, NAME)).json()["model"] == f"{NAME}@1"
    assert (await USES[0].ask(served, OWNER, TUNED)).status_code == 404
    assert (await delete.ask(served, OWNER, TUNED)).status_code == 404
    for model in (STEP, NAME):
        assert (await delete.ask(served, OWNER, model)).status_code == 200
    assert [one.name for one in served.gateway.adapters.store.all()] == ["shared"]


async def test_a_model_in_use_is_not_removed(served: Served) -> None:
    delete = Verb("DELETE", "/v1/models/{}")
    for model in (TUNED, STEP):
        ref = served.gateway.adapters.view(lambda owner: True).acquire(model)
        answer = await delete.ask(served, OWNER, model)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
        served.gateway.adapters.roster.release(ref)
        assert (await USES[0].ask(served, OWNER, model)).status_code == 200
