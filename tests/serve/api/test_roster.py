"""What the engine is told of adapters, in step with what requests may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.adapters.registry import Load
from tunechat.serve.api.roster import Roster
from tunechat.serve.contract.adapters import ADAPTER_FORMAT, AdapterManifest, Variant
from tunechat.serve.contract.errors import AdapterCapacity, ModelNotFound, Unavailable
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.harness import ScriptedEngine


def version(name: str, number: int = 1, digest: str = "d") -> AdapterManifest:
    return AdapterManifest(
        format=ADAPTER_FORMAT, name=name, number=number, digest=digest, variant=Variant.LORA, rank=1, alpha=1.0,
        targets=("q_proj",), modules=1, parameters=1, bytes=1, size=1, created=0, files={},
    )  # fmt: skip


@pytest.fixture
def engine(text: ModelText, entry: Path) -> ScriptedEngine:
    return ScriptedEngine(text=text, entry=entry)


@pytest.fixture
def forgotten() -> list[str]:
    return []


@pytest.fixture
def roster(engine: ScriptedEngine, forgotten: list[str]) -> Roster:
    return Roster(engine, forgotten.append)


def folder(manifest: AdapterManifest) -> Path:
    return Path("/store") / manifest.name / str(manifest.number)


def stage(roster: Roster, manifest: AdapterManifest, *, is_alias: bool = True) -> Load:
    return roster.stage(manifest, folder(manifest), is_alias=is_alias)


def serve(roster: Roster, manifest: AdapterManifest, *, is_alias: bool = True) -> None:
    roster.commit(stage(roster, manifest, is_alias=is_alias), manifest, folder(manifest))


def test_the_engine_knows_a_version_before_requests_do(roster: Roster, engine: ScriptedEngine) -> None:
    one = version("a")
    load = stage(roster, one)
    assert engine.adapters == {"d": folder(one)}
    assert not roster.knows("a")
    roster.commit(load, one, folder(one))
    assert roster.knows("a") and roster.knows("a@1")
    assert roster.manifest(one.ref) is one


def test_a_load_that_fails_is_forgotten_by_the_engine(roster: Roster, engine: ScriptedEngine) -> None:
    serve(roster, version("a", digest="same"))
    roster.fail(stage(roster, version("b", digest="same")))
    roster.fail(stage(roster, version("c", digest="other")))
    assert set(engine.adapters) == {"same"}
    assert engine.removed == ["other"]


def test_an_engine_that_takes_nothing_blocks_no_name(
    roster: Roster, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "add_adapter", refuse)
        patched.setattr(engine, "remove_adapter", lambda digest: None)
        with pytest.raises(Unavailable):
            stage(roster, version("a"))
    serve(roster, version("a"))


def test_versions_stay_when_the_alias_moves(roster: Roster, engine: ScriptedEngine) -> None:
    serve(roster, version("a", 1, "x"))
    serve(roster, version("a", 2, "y"))
    assert roster.knows("a@1")
    assert [one.is_current for one in roster.of("a")] == [False, True]
    assert engine.removed == []


def test_what_is_in_use_drains(roster: Roster, engine: ScriptedEngine, forgotten: list[str]) -> None:
    serve(roster, version("a", 1, "x"))
    serve(roster, version("a", 2, "y"))
    ref = roster.acquire("a@1")
    assert roster.unload("a") == ("a@1",)
    assert (engine.removed, forgotten) == (["y"], ["a@2"])
    with pytest.raises(ModelNotFound):
        roster.unload("a")
    roster.release(ref)
    assert (engine.removed, forgotten) == (["y", "x"], ["a@2", "a@1"])


def test_shared_weights_stay_pinned_while_any_name_is(roster: Roster, engine: ScriptedEngine) -> None:
    serve(roster, version("a"))
    serve(roster, version("b"))
    roster.pinned = {"a@1", "b@1"}
    roster.pin("a@1")
    roster.pinned = {"b@1"}
    roster.pin("a@1")
    assert engine.pinned == {"d"}
    roster.pinned = set()
    roster.pin("b@1")
    roster.pin("nothing@1")
    assert engine.pinned == set()


def test_a_pin_that_finds_no_room_does_not_stop_a_load(roster: Roster, engine: ScriptedEngine) -> None:
    roster.pinned = {"a@1"}
    engine.pin_fault = AdapterCapacity("full")
    serve(roster, version("a"))
    assert roster.knows("a")
    assert engine.pinned == set()


def test_the_engine_is_told_where_shared_weights_still_are(roster: Roster, engine: ScriptedEngine) -> None:
    serve(roster, version("a"))
    serve(roster, version("b"))
    roster.unload("b")
    assert engine.adapters == {"d": folder(version("a"))}
