"""More adapters than slots or memory: who waits, who is refused, and that nobody is starved."""

from __future__ import annotations

from tunechat.serve.contract.messages import AdapterFailed, AdapterLoaded
from tunechat.tests.serve.engine.asking import ask, engine, is_right
from tunechat.tests.serve.engine.harness import Harness, greedy


def test_thrash_with_one_slot_ends_with_every_text_right() -> None:
    harness = engine("a", "b", adapter_slots=1, adapter_bytes=100)
    for at in range(20):
        ask(harness, str(at), "ab"[at % 2], tokens=3)
    steps = harness.drain()
    assert all(is_right(harness, str(at), "ab"[at % 2], tokens=3) for at in range(20))
    stats = harness.engine.stats
    assert stats.adapter_loads == len(harness.runner.reads) <= 20
    assert stats.adapter_evictions == stats.adapter_loads - 1
    assert sum(one.loads for one in stats.adapter_moves) == stats.adapter_loads
    assert sum(one.evictions for one in stats.adapter_moves) == stats.adapter_evictions
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
    ask(harness, "x", "a", tokens=200)
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
