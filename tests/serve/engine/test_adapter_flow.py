"""Adapters in an engine whose toy model tells every change of weights."""

from __future__ import annotations

import random

import pytest

from tunechat.serve.contract.messages import AdapterFailed, AdapterLoaded, AdapterUse, LoadAdapter, RemoveAdapter
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.block_pool import IntegrityError
from tunechat.tests.serve.engine.asking import PROMPT, ask, engine, is_right
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import ToyRunner, alone


def test_base_and_adapters_share_a_batch_and_each_gets_its_own_text() -> None:
    harness = engine("a", "b")
    compositions = [(), ("a",), ("b",), ("b", "a"), ()]
    for at, digests in enumerate(compositions):
        ask(harness, str(at), *digests)
    harness.drain()
    assert all(is_right(harness, str(at), *digests) for at, digests in enumerate(compositions))
    assert len({tuple(harness.text(name)) for name in harness.outputs}) == 4
    assert sorted(harness.runner.reads) == ["a", "b"]


def test_weights_belong_to_requests() -> None:
    harness = engine("a", "b")
    mixtures = [
        (AdapterUse("a", 0.5),),
        (AdapterUse("a", 1.0),),
        (AdapterUse("b", 0.25), AdapterUse("a", 0.5)),
        (AdapterUse("b", 0.5), AdapterUse("a", 0.25)),
    ]
    for at, mixture in enumerate(mixtures):
        harness.submit(str(at), PROMPT, greedy(6), adapters=mixture)
    harness.drain()
    assert [harness.result(str(at)) for at in range(4)] == [alone(PROMPT, greedy(6), mixture) for mixture in mixtures]
    assert len({tuple(harness.text(name)) for name in harness.outputs}) == 4


def test_200_interleavings_never_mix_weights() -> None:
    """Base, A, B, mixtures, and A reloaded with new bytes: whatever shares a batch, a slot or a cache."""
    for seed in range(200):
        rng = random.Random(seed)
        harness = Harness(
            ToyRunner(
                blocks=rng.choice([12, 20, 64]),
                max_tokens=rng.choice([8, 32]),
                adapter_slots=rng.choice([1, 2, 4]),
                adapter_bytes=rng.choice([200, 300, 1000]),
            ),
            max_running=rng.choice([2, 6]),
            prefill_chunk=rng.choice([2, 8]),
        )
        versions = {"A": "A-0", "B": "B-0"}
        harness.add(*versions.values())
        expected = {}
        for at in range(12):
            if rng.random() < 0.3:
                name = rng.choice("AB")
                harness.remove(versions[name])
                if rng.random() < 0.7:
                    versions[name] = f"{name}-{at}"
                harness.add(versions[name])
            if rng.random() < 0.2:
                harness.load(rng.choice(list(versions.values())))
            kinds = [(), ("A",), ("B",)] + ([("A", "B")] if harness.runner.adapter_slots > 1 else [])
            mixture = tuple(AdapterUse(versions[name], rng.choice([1.0, 0.5])) for name in rng.choice(kinds))
            prompt = [*PROMPT[: rng.choice([5, 11])], rng.randrange(2)]
            params = rng.choice([greedy(5), greedy(9), SamplingParams(max_tokens=5, seed=at)])
            harness.submit(str(at), prompt, params, adapters=mixture, salt=rng.choice("xy"))
            expected[str(at)] = alone(prompt, params, mixture)
            for _ in range(rng.randrange(4)):
                if harness.scheduler.has_work:
                    harness.step()
        harness.drain()
        assert {name: harness.result(name) for name in expected} == expected, f"seed {seed}"


def test_new_bytes_find_nothing_in_the_cache_and_the_same_bytes_find_all() -> None:
    harness = engine("a")
    ask(harness, "first", "a")
    harness.drain()
    harness.remove("a")
    assert harness.runner.slots == [None] * 4
    assert harness.engine.stats.adapters == []
    harness.add("a", "new")
    ask(harness, "same", "a")
    ask(harness, "new", "new")
    ask(harness, "base")
    harness.drain()
    assert [harness.outputs[name][-1].cached_tokens for name in ("first", "same", "new", "base")] == [0, 8, 0, 0]
    assert is_right(harness, "same", "a")
    assert is_right(harness, "new", "new")


def test_who_waits_for_a_reading_holds_up_nobody() -> None:
    harness = engine("a", "b")
    assert isinstance(harness.load("b"), AdapterLoaded)
    harness.runner.may_read.clear()
    for at in range(30):
        ask(harness, f"slow-{at}", "a")
    ask(harness, "base")
    ask(harness, "other", "b")
    while harness.finish("base") is None or harness.finish("other") is None:
        harness.step()
    assert is_right(harness, "base")
    assert is_right(harness, "other", "b")
    assert harness.text("slow-0") == []
    harness.runner.may_read.set()
    harness.drain()
    assert all(is_right(harness, f"slow-{at}", "a") for at in range(30))


def test_a_load_is_answered_once_it_is_in_memory_and_reads_nothing_twice() -> None:
    harness = engine("a")
    assert harness.load("a") == AdapterLoaded(digest="a", bytes=100)
    assert harness.load("a") == AdapterLoaded(digest="a", bytes=100)
    assert harness.runner.reads == ["a"]
    (entry,) = harness.engine.stats.adapters
    assert (entry.slot, entry.running, entry.waiting, entry.pinned) == (None, 0, 0, False)
    ask(harness, "x", "a")
    harness.step()
    (entry,) = harness.engine.stats.adapters
    assert (entry.slot is None, entry.running) == (False, 1)


@pytest.mark.parametrize(
    ("folder", "code", "status", "says"),
    [("wrong", "invalid_adapter", 422, "rank"), ("broken", "adapter_load_failed", 500, "log")],
)
def test_a_failed_reading_fails_those_who_need_it_and_nobody_else(
    folder: str, code: str, status: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    harness = engine("good")
    harness.add("bad", folder=folder)
    ask(harness, "x", "bad")
    ask(harness, "y", "bad", "good")
    ask(harness, "z", "good")
    ask(harness, "base")
    harness.drain()
    for name in "xy":
        error = harness.error(name)
        assert (error.code, error.http_status) == (code, status)
        assert says in error.message
        assert "bad@1" in error.message
    assert is_right(harness, "z", "good")
    assert is_right(harness, "base")
    answer = harness.load("bad")
    assert isinstance(answer, AdapterFailed)
    assert answer.error.code == code
    assert "bad@1" in caplog.text
    # The file was mended: the next who wants it gets it.
    harness.add("bad")
    ask(harness, "again", "bad")
    harness.drain()
    assert is_right(harness, "again", "bad")


def test_an_adapter_that_gives_no_numbers_hurts_only_its_own_requests() -> None:
    harness = engine("good")
    harness.add("poison", folder="poison")
    for name, digests in (("good", ["good"]), ("base", [])):
        ask(harness, name, *digests)
    harness.drain()
    ask(harness, "x", "poison")
    ask(harness, "y", "poison", "good")
    ask(harness, "good again", "good")
    ask(harness, "base again")
    harness.drain()
    for name in "xy":
        assert harness.error(name).code == "numerical_error"
    assert is_right(harness, "good again", "good")
    assert is_right(harness, "base again")
    # What the others have computed is as good as before.
    ask(harness, "later", "good")
    ask(harness, "base later")
    harness.drain()
    for name in ("good again", "base again", "later", "base later"):
        assert harness.outputs[name][-1].cached_tokens == 8


@pytest.mark.parametrize(
    ("digests", "code", "status"),
    [
        (["x"], "model_not_found", 404),
        (["a", "x"], "model_not_found", 404),
        (["a", "a"], "invalid_request", 400),
        (["a", "b", "c"], "invalid_request", 400),
    ],
)
def test_a_request_for_what_is_not_there_fails_alone(digests: list[str], code: str, status: int) -> None:
    harness = engine("a", "b", "c", adapter_slots=2)
    ask(harness, "wrong", *digests)
    ask(harness, "right", "a", "b")
    harness.drain()
    assert (harness.error("wrong").code, harness.error("wrong").http_status) == (code, status)
    assert is_right(harness, "right", "a", "b")


def test_an_adapter_removed_while_used_is_freed_after_its_last_request() -> None:
    harness = engine("a")
    ask(harness, "runs", "a", tokens=20)
    harness.drain_until("runs", 2)
    ask(harness, "waits", "a", tokens=3)
    harness.remove("a")
    harness.remove("a")
    ask(harness, "late", "a")
    assert harness.error("late").http_status == 404
    assert len(harness.engine.stats.adapters) == 1
    harness.scheduler._preempt(harness.scheduler.running[0])
    harness.drain()
    assert is_right(harness, "runs", "a", tokens=20)
    assert is_right(harness, "waits", "a", tokens=3)
    harness.engine.receive(0.0)
    assert harness.engine.stats.adapters == []
    assert harness.runner.slots == [None] * 4
    assert harness.engine.adapters.get("a") is None


def test_one_that_was_put_back_keeps_an_adapter_that_was_removed() -> None:
    harness = engine("a")
    ask(harness, "x", "a", tokens=20)
    harness.drain_until("x", 2)
    harness.remove("a")
    harness.scheduler._preempt(harness.scheduler.running[0])
    harness.drain()
    assert is_right(harness, "x", "a", tokens=20)
    assert harness.runner.reads == ["a"]


def test_removed_while_it_is_being_read() -> None:
    harness = engine("a")
    harness.runner.may_read.clear()
    harness.tell(LoadAdapter(digest="a"))
    harness.tell(LoadAdapter(digest="a"))
    harness.tell(RemoveAdapter(digest="a"))
    (answer,) = harness.answers
    assert isinstance(answer, AdapterFailed)
    assert answer.error.http_status == 409
    harness.add("a")
    harness.tell(LoadAdapter(digest="a"))
    harness.runner.may_read.set()
    harness.until_answered(2)
    assert harness.answers[1] == AdapterLoaded(digest="a", bytes=100)
    assert isinstance(harness.load("x"), AdapterFailed)


def test_those_who_leave_while_it_is_being_read_leave_nothing_behind() -> None:
    harness = engine("a", "b")
    harness.runner.may_read.clear()
    ask(harness, "x", "a")
    harness.abort("x")
    assert not harness.scheduler.has_work
    ask(harness, "y", "b")
    harness.runner.may_read.set()
    harness.drain()
    assert is_right(harness, "y", "b")
    assert [entry.digest for entry in harness.engine.stats.adapters] == ["b"]


def test_an_engine_without_slots_serves_the_base() -> None:
    harness = engine("a", adapter_slots=0)
    ask(harness, "x", "a")
    ask(harness, "base")
    harness.drain()
    assert harness.error("x").http_status == 400
    assert is_right(harness, "base")


def test_waiting_with_nothing_on_its_way_is_a_bug_that_ends_the_engine() -> None:
    harness = engine("a")
    harness.runner.may_read.clear()
    ask(harness, "x", "a")
    harness.engine._flow._reading = None
    harness.engine.adapters._missing.clear()
    with pytest.raises(IntegrityError):
        harness.engine.step()
    harness.runner.may_read.set()
