"""Adapters in an engine whose toy model tells every change of weights."""

from __future__ import annotations

import random

import pytest

from tunechat.serve.contract.messages import AdapterFailed, AdapterLoaded, AdapterUse, LoadAdapter, RemoveAdapter
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.block_pool import IntegrityError
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import ToyRunner, alone

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def uses(*digests: str) -> tuple[AdapterUse, ...]:
    return tuple(map(AdapterUse, digests))


def engine(*known: str, folder: str = "ok", max_running: int = 8, **runner: int) -> Harness:
    harness = Harness(ToyRunner(**runner), max_running=max_running)
    harness.add(*known, folder=folder)
    return harness


def ask(harness: Harness, name: str, *digests: str, tokens: int = 6) -> None:
    harness.submit(name, PROMPT, greedy(tokens), adapters=uses(*digests))


def is_right(harness: Harness, name: str, *digests: str, tokens: int = 6) -> bool:
    return harness.result(name) == alone(PROMPT, greedy(tokens), uses(*digests))


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
    assert (entry.slot, entry.running, entry.waiting, entry.loads, entry.pinned) == (None, 0, 0, 1, False)
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


def test_thrash_with_one_slot_ends_with_every_text_right() -> None:
    harness = engine("a", "b", adapter_slots=1, adapter_bytes=100)
    for at in range(20):
        ask(harness, str(at), "ab"[at % 2], tokens=3)
    steps = harness.drain()
    assert all(is_right(harness, str(at), "ab"[at % 2], tokens=3) for at in range(20))
    stats = harness.engine.stats
    assert stats.adapter_loads == len(harness.runner.reads) <= 20
    assert stats.adapter_evictions == stats.adapter_loads - 1
    assert steps < 300


def serve_among(harness: Harness, wanted: str, traffic: list[str], steps: int = 200) -> None:
    """Steps until `wanted` has ended, with one more request for an adapter of `traffic` in each step."""
    for at in range(steps):
        if harness.finish(wanted) is not None:
            return
        ask(harness, f"traffic-{wanted}-{at}", traffic[at % len(traffic)], tokens=4)
        harness.step()
    raise AssertionError(f"{wanted} was starved")


def test_endless_traffic_of_one_adapter_starves_no_other_and_no_base() -> None:
    harness = engine("a", "b", "c", adapter_slots=1)
    ask(harness, "first", "a", tokens=4)
    harness.step()
    ask(harness, "b", "b", tokens=4)
    ask(harness, "c", "c", tokens=4)
    base_steps = []
    for at in range(200):
        if harness.finish("b") is not None and harness.finish("c") is not None:
            break
        ask(harness, f"a-{at}", "a", tokens=4)
        name = f"base-{at}"
        harness.submit(name, [at % 40], greedy(1))
        for steps in range(1, 100):
            harness.step()
            if harness.finish(name) is not None:
                base_steps.append(steps)
                break
    else:
        raise AssertionError("b or c was starved")
    # Base requests pass while the slot drains for b and c.
    assert max(base_steps) <= 10
    harness.drain()
    assert is_right(harness, "b", "b", tokens=4)
    assert is_right(harness, "c", "c", tokens=4)


def test_endless_traffic_that_fills_memory_starves_no_other() -> None:
    harness = engine("a", "b", adapter_slots=4, adapter_bytes=150)
    ask(harness, "first", "a", tokens=4)
    harness.step()
    ask(harness, "b", "b", tokens=4)
    serve_among(harness, "b", ["a"])
    assert is_right(harness, "b", "b", tokens=4)
    harness.drain()


def test_a_composition_gets_its_slots_among_endless_single_ones() -> None:
    harness = engine("a", "b", "c", adapter_slots=2)
    for name in "ab":
        ask(harness, f"{name}-first", name, tokens=5)
    harness.step()
    ask(harness, "both", "b", "c", tokens=4)
    serve_among(harness, "both", ["a", "b"])
    assert is_right(harness, "both", "b", "c", tokens=4)
    harness.drain()


def test_one_that_is_older_than_the_starved_may_still_pass() -> None:
    """Else each would wait for the other: the old one for the slots, the starved one for its memory."""
    harness = engine("a", "b", adapter_slots=4, adapter_bytes=150, blocks=200)
    ask(harness, "old", "a", tokens=200)
    harness.drain_until("old", 1)
    ask(harness, "starved", "b", tokens=4)
    while (starved := harness.scheduler.waiting.get("starved")) is not None and starved.overtaken < 16:
        ask(harness, f"young-{starved.overtaken}-{harness.runner.steps}", "a", tokens=2)
        harness.step()
    while len(harness.scheduler.running) > 1:
        harness.step()
    harness.scheduler._preempt(harness.scheduler.running[0])
    harness.drain()
    assert is_right(harness, "old", "a", tokens=200)
    assert is_right(harness, "starved", "b", tokens=4)


def test_base_requests_that_pass_do_not_close_the_slots() -> None:
    harness = engine("a", "b", adapter_slots=1, blocks=200)
    assert isinstance(harness.load("b"), AdapterLoaded)
    ask(harness, "runs", "a", tokens=200)
    harness.drain_until("runs", 1)
    ask(harness, "waits", "b")
    for at in range(40):
        ask(harness, f"base-{at}", tokens=1)
        harness.step()
        harness.step()
    ask(harness, "shares", "a", tokens=2)
    for _ in range(5):
        harness.step()
    assert is_right(harness, "shares", "a", tokens=2)
    assert harness.finish("runs") is None
    harness.drain()
    assert is_right(harness, "waits", "b")


def test_a_pinned_adapter_keeps_its_slot_whatever_comes() -> None:
    harness = engine("a", "b", "c", adapter_slots=2, adapter_bytes=250)
    ask(harness, "x", "a")
    harness.drain()
    harness.pin("a")
    slot = harness.engine.adapters.slot_of["a"]
    for at in range(6):
        ask(harness, str(at), "bc"[at % 2])
    harness.drain()
    assert harness.engine.adapters.slot_of["a"] == slot
    assert harness.runner.reads.count("a") == 1
    ask(harness, "two", "b", "c")
    harness.drain()
    assert (harness.error("two").code, harness.error("two").http_status) == ("adapter_capacity", 503)
    harness.pin("b")
    harness.pin("a", pinned=False)
    ask(harness, "two again", "b", "c")
    harness.drain()
    assert is_right(harness, "two again", "b", "c")


def test_a_pin_that_comes_while_a_composition_runs_does_not_leave_it_stuck() -> None:
    harness = engine("a", "b", "c", adapter_slots=2)
    ask(harness, "runs", "b", "c", tokens=30)
    harness.drain_until("runs", 3)
    harness.pin("a")
    harness.scheduler._preempt(harness.scheduler.running[0])
    ask(harness, "base", tokens=2)
    harness.drain()
    assert harness.error("runs").code == "adapter_capacity"
    assert is_right(harness, "base", tokens=2)


def test_an_adapter_larger_than_the_memory_for_them_is_refused() -> None:
    harness = engine("a", adapter_bytes=250)
    harness.add("huge", folder="size-251")
    answer = harness.load("huge")
    assert isinstance(answer, AdapterFailed)
    assert (answer.error.code, answer.error.http_status) == ("adapter_capacity", 503)
    ask(harness, "x", "huge")
    ask(harness, "y", "a")
    harness.drain()
    assert harness.error("x").code == "adapter_capacity"
    assert "251" in harness.error("x").message
    assert is_right(harness, "y", "a")
    assert harness.engine.stats.adapter_evictions == 0


def test_a_composition_larger_than_the_memory_is_refused_once_its_size_is_known() -> None:
    harness = engine("a", "b", "c", adapter_bytes=250)
    ask(harness, "x", "a", "b", "c")
    ask(harness, "y", "a", "b")
    harness.drain()
    assert harness.error("x").code == "adapter_capacity"
    assert is_right(harness, "y", "a", "b")


def test_a_load_finds_no_room_while_all_that_is_there_is_in_use() -> None:
    harness = engine("a", "b", adapter_bytes=150)
    ask(harness, "x", "a", tokens=30)
    harness.drain_until("x", 2)
    answer = harness.load("b")
    assert isinstance(answer, AdapterFailed)
    assert (answer.error.code, answer.error.retry_after) == ("adapter_capacity", 5)
    harness.drain()
    assert is_right(harness, "x", "a", tokens=30)
    assert isinstance(harness.load("b"), AdapterLoaded)


def test_a_load_does_not_wait_behind_one_that_finds_no_room() -> None:
    harness = engine("a", "b", "c", adapter_bytes=150)
    ask(harness, "x", "a", tokens=30)
    harness.drain_until("x", 2)
    ask(harness, "stuck", "b", tokens=3)
    while harness.engine.adapters.stuck is None:
        harness.step()
    answer = harness.load("c")
    assert isinstance(answer, AdapterFailed)
    assert answer.error.code == "adapter_capacity"
    assert harness.runner.reads == ["a", "b"]
    harness.drain()
    assert is_right(harness, "stuck", "b", tokens=3)


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


def test_the_oldest_gets_what_younger_ones_wait_for() -> None:
    """Two compositions that each have one half in memory: neither may wait for the other for ever."""
    harness = engine("a", "b", "c", "d", adapter_slots=2, adapter_bytes=200)
    assert isinstance(harness.load("a"), AdapterLoaded)
    assert isinstance(harness.load("c"), AdapterLoaded)
    ask(harness, "old", "a", "b")
    ask(harness, "young", "c", "d")
    harness.drain()
    assert is_right(harness, "old", "a", "b")
    assert is_right(harness, "young", "c", "d")


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
