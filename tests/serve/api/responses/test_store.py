"""Responses in their file: whole or not at all, seen by their tenant, bounded in number, bytes and age."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunechat.serve.api.responses.items import message_item, output_text
from tunechat.serve.api.responses.store import ResponseStore, StoredResponse, UnknownVersion

Open = Callable[..., ResponseStore]


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def open_store(tmp_path: Path, now: list[float]) -> Iterator[Open]:
    opened: list[ResponseStore] = []

    def make(*, retention: float = 100, most: int = 100, most_bytes: int = 1 << 30) -> ResponseStore:
        path = tmp_path / "responses.db"
        store = ResponseStore(path, retention=retention, most=most, most_bytes=most_bytes, clock=lambda: now[0])
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


def said(text: str) -> dict[str, Any]:
    return message_item("assistant", [output_text(text)])


def response(id_: str, *output: dict[str, Any], status: str = "completed", **fields: Any) -> StoredResponse:
    told = {"tenant": "t", "created": 1000.0} | fields
    return StoredResponse(id=id_, body={"id": id_, "status": status, "background": False}, output=output, **told)


def count(store: ResponseStore, table: str) -> int:
    return int(store._base.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608


def test_what_was_saved_is_read_after_reopening(open_store: Open, tmp_path: Path) -> None:
    first, given_, answer = said("0"), message_item("user", [{"type": "input_text", "text": "1"}]), said("2")
    store = open_store()
    store.save(response("r", answer, context=[first], given=[given_]))
    store.close()
    store = open_store()
    assert store.read("t", "r") == {"id": "r", "status": "completed", "background": False, "output": [answer]}
    assert store.given("t", "r") == [given_]
    assert store.conversation("t", "r") == [first, given_, answer]
    assert store.items("t", [answer["id"], "msg_other"]) == {answer["id"]: answer}
    assert stat.S_IMODE((tmp_path / "responses.db").stat().st_mode) == 0o600


def test_others_see_nothing(open_store: Open) -> None:
    store = open_store()
    answer = said("secret")
    store.save(response("r", answer))
    assert store.read("u", "r") is None
    assert store.conversation("u", "r") is None
    assert store.given("u", "r") is None
    assert store.items("u", [answer["id"]]) == {}
    assert not store.delete("u", "r")
    assert store.read("t", "r") is not None


def test_a_conversation_outlives_the_responses_before_it(open_store: Open) -> None:
    store = open_store()
    one, two = said("one"), said("two")
    store.save(response("r1", one))
    store.save(response("r2", two, context=[one]))
    assert store.delete("t", "r1")
    assert store.conversation("t", "r2") == [one, two]
    assert store.delete("t", "r2")
    assert (count(store, "items"), count(store, "links"), count(store, "responses")) == (0, 0, 0)
    assert not store.delete("t", "r2")


def test_items_that_went_meanwhile_are_kept_with_what_was_made_of_them(open_store: Open) -> None:
    store = open_store()
    one = said("one")
    store.save(response("r1", one))
    context = store.conversation("t", "r1")
    store.delete("t", "r1")
    store.save(response("r2", said("two"), context=context or []))
    assert [item["content"][0]["text"] for item in store.conversation("t", "r2") or []] == ["one", "two"]


def test_a_save_that_fails_leaves_nothing(open_store: Open) -> None:
    store = open_store()
    bad = said("x") | {"id": None}
    with pytest.raises(sqlite3.Error):
        store.save(response("r", said("y"), bad))
    assert (count(store, "items"), count(store, "links"), count(store, "responses")) == (0, 0, 0)
    store.save(response("r", said("y")))
    assert store.read("t", "r") is not None


def test_what_has_expired_is_not_seen_and_goes(open_store: Open, now: list[float]) -> None:
    store = open_store(retention=100)
    answer = said("old")
    store.save(response("r", answer))
    now[0] = 1100.0
    assert store.read("t", "r") is None
    assert store.items("t", [answer["id"]]) == {}
    assert count(store, "responses") == 1
    store.tidy()
    assert (count(store, "items"), count(store, "responses")) == (0, 0)


def test_expired_ones_go_at_the_start_and_with_a_save(open_store: Open, now: list[float]) -> None:
    store = open_store()
    store.save(response("r1", said("old")))
    now[0] = 1200.0
    store.save(response("r2", said("new"), created=1200.0))
    assert count(store, "responses") == 1
    now[0] = 1400.0
    assert count(open_store(), "responses") == 0


def test_each_tenant_has_so_many(open_store: Open) -> None:
    store = open_store(most=2)
    for number in range(4):
        store.save(response(f"r{number}", said("x"), created=1000.0 + number))
    store.save(response("other", said("x"), tenant="u"))
    assert [store.read("t", f"r{number}") is not None for number in range(4)] == [False, False, True, True]
    assert store.read("u", "other") is not None


def test_bytes_are_bounded_and_the_largest_tenant_gives_way(open_store: Open, tmp_path: Path) -> None:
    bound = 1 << 20
    store = open_store(most_bytes=bound)
    store.save(response("other", said("x"), tenant="u", created=1.0 + 990))
    for number in range(40):
        store.save(response(f"r{number}", said("x" * 100_000), created=1000.0 + number))
        assert store._bytes <= bound
    assert store.read("u", "other") is not None
    assert store.read("t", "r39") is not None
    kept = count(store, "responses")
    assert 5 < kept < 12
    store.tidy()
    store.close()
    assert (tmp_path / "responses.db").stat().st_size < 2 * bound


def test_what_was_deleted_is_not_in_the_file(open_store: Open, tmp_path: Path) -> None:
    store = open_store()
    store.save(response("r", said("a very particular phrase " * 50)))
    store.delete("t", "r")
    store.close()
    assert all(b"particular" not in path.read_bytes() for path in tmp_path.iterdir())


def test_what_ran_when_the_server_died_has_failed(open_store: Open) -> None:
    store = open_store()
    store.save(response("r1", status="queued", given=[message_item("user", [])]))
    store.save(response("r2", said("x")))
    assert store.conversation("t", "r1") is None
    store.close()
    store = open_store()
    died = store.read("t", "r1")
    assert died is not None
    assert (died["status"], died["error"]["code"]) == ("failed", "server_error")
    assert (store.read("t", "r2") or {})["status"] == "completed"


def test_the_end_takes_the_place_of_the_beginning(open_store: Open) -> None:
    store = open_store()
    given_, answer = message_item("user", []), said("x")
    store.save(response("r", status="queued", given=[given_]))
    store.save(response("r", answer, given=[given_]))
    found = store.read("t", "r")
    assert found is not None
    assert (found["status"], found["output"]) == ("completed", [answer])
    assert store.conversation("t", "r") == [given_, answer]
    assert count(store, "responses") == 1


def test_a_file_of_a_newer_release_is_left_alone(open_store: Open, tmp_path: Path) -> None:
    open_store().close()
    with sqlite3.connect(tmp_path / "responses.db") as base:
        base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(UnknownVersion):
        open_store()


def test_what_is_no_database_is_refused(open_store: Open, tmp_path: Path) -> None:
    (tmp_path / "responses.db").write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.Error):
        open_store()


steps = st.lists(
    st.tuples(st.sampled_from(["save", "delete"]), st.integers(0, 4), st.sampled_from("tu"), st.integers(0, 4)),
    max_size=25,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_no_item_is_without_a_response_and_no_link_without_an_item(
    steps: list[tuple[str, int, str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "r.db"
    store = ResponseStore(path, retention=1e9, most=3, most_bytes=1 << 30, clock=lambda: 1000.0)
    for clock, (what, number, tenant, earlier) in enumerate(steps):
        id_ = f"{tenant}{number}"
        if what == "save":
            context = store.conversation(tenant, f"{tenant}{earlier}") or []
            store.save(response(id_, said("x"), tenant=tenant, context=context, created=float(clock)))
        else:
            store.delete(tenant, id_)
    lost = "SELECT COUNT(*) FROM items WHERE id NOT IN (SELECT item FROM links)"
    assert store._base.execute(lost).fetchone()[0] == 0
    assert store._base.execute("PRAGMA foreign_key_check").fetchall() == []
    for tenant in "tu":
        kept = store._base.execute("SELECT COUNT(*) FROM responses WHERE tenant = ?", (tenant,)).fetchone()[0]
        assert kept <= 3
    store.close()
