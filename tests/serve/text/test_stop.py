"""Stop strings against a search in the whole text."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.text.stop import StopMatcher

LETTERS = st.text(alphabet="ab🎉", max_size=30)
STOPS = st.lists(st.text(alphabet="ab🎉", min_size=1, max_size=5), max_size=16)


def reference(text: str, stops: list[str], include_stop: bool) -> tuple[str, str | None]:
    found = [(text.find(stop), len(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    start, length, stop = min(found)
    return text[: start + (length if include_stop else 0)], stop


@given(LETTERS, STOPS, st.lists(st.integers(0, 30)), st.booleans())
def test_any_split_gives_what_a_search_gives(text: str, stops: list[str], cuts: list[int], include_stop: bool) -> None:
    expected, stop = reference(text, stops, include_stop)
    matcher = StopMatcher(stops, include_stop=include_stop)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    emitted = ""
    for start, end in itertools.pairwise(edges):
        piece, matched = matcher.push(text[start:end])
        emitted += piece
        assert expected.startswith(emitted)
        assert matched == matcher.matched
    emitted += matcher.finish()
    assert (emitted, matcher.matched) == (expected, stop)


@given(LETTERS, STOPS)
def test_holds_back_only_what_may_become_a_stop_string(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    emitted = ""
    for end, character in enumerate(text, start=1):
        emitted += matcher.push(character)[0]
        if matcher.matched is not None:
            break
        held = text[len(emitted) : end]
        inside = [stop for stop in stops if stop in held]
        assert not held or inside or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "emitted", "matched"),
    [
        (["Hel", "lo EN", "D more"], ["END"], ["Hel", "lo ", ""], "END"),
        (["E", "N", "D", "!"], ["END"], ["", "", "", ""], "END"),
        (["aab", "aac"], ["aabaab", "baac"], ["", "aa"], "baac"),
        (["aba"], ["ab", "aba"], [""], "ab"),
        (["x\n", "\n"], ["\n\n"], ["x", ""], "\n\n"),
        (["x\n", "y"], ["\n\n"], ["x", "\ny"], None),
        (["text"], [], ["text"], None),
    ],
)
def test_examples(pieces: list[str], stops: list[str], emitted: list[str], matched: str | None) -> None:
    matcher = StopMatcher(stops)
    assert [matcher.push(piece)[0] for piece in pieces] == emitted
    assert (matcher.finish(), matcher.matched) == ("", matched)


def test_a_match_that_waits_for_an_earlier_one_counts_at_the_end() -> None:
    matcher = StopMatcher(["abcd", "bc"])
    assert matcher.push("xabc") == ("x", None)
    assert matcher.finish() == "a"
    assert matcher.matched == "bc"


def test_nothing_comes_after_a_stop_string() -> None:
    matcher = StopMatcher(["."])
    assert matcher.push("one. two") == ("one", ".")
    assert matcher.push("three") == ("", ".")
    assert matcher.finish() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])


def _seconds(length: int, stop: str) -> float:
    started = time.process_time()
    matcher = StopMatcher([stop])
    for _ in range(length):
        matcher.push("a")
    matcher.finish()
    return time.process_time() - started


def test_work_is_linear_where_every_character_may_begin_the_stop_string() -> None:
    """A search that starts anew for each character would need 500 times as long for the long stop string."""
    short = min(_seconds(20_000, "aab") for _ in range(3))
    long = min(_seconds(20_000, "a" * 1000 + "b") for _ in range(3))
    assert long < 20 * short
