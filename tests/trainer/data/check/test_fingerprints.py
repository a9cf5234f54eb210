"""Which samples count as alike."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.tests.trainer.data.writing import call, chat, tool
from tunechat.trainer.data.check.fingerprints import Fingerprints
from tunechat.trainer.data.sample import Place, PlainText, Sample


def of(*samples: Sample) -> Fingerprints:
    prints = Fingerprints()
    for sample in samples:
        prints.add(sample)
    return prints


def at(line: int, question: str = "q", answer: str = "a", **more: object) -> Sample:
    return chat(("user", question), ("assistant", answer), place=Place("f", line), **more)


def repeated(*samples: Sample) -> list[tuple[int, int, bool]]:
    return [(place.line, first.line, exact) for place, first, exact in of(*samples).repeated()]


def test_exact_and_loose() -> None:
    samples = (at(1), at(2, "r"), at(3), at(4, " Q! "), at(5))
    assert repeated(*samples) == [(3, 1, True), (4, 1, False), (5, 1, True)]


def test_tools_make_a_difference_and_roles_and_bounds_of_messages_too() -> None:
    assert repeated(at(1), at(2, tools=(tool("f"),))) == [(2, 1, False)]
    assert repeated(at(1, "a b", "c"), at(2, "a", "b c")) == []
    assert repeated(chat(("user", "x")), chat(call("x", "{}"))) == []


def test_text() -> None:
    assert repeated(PlainText("Once, twice", Place("f", 1)), PlainText("once twice.", Place("f", 2))) == [(2, 1, False)]


def test_shared_by_two_sets() -> None:
    training, validation = of(at(1), at(2, "r"), at(3, "s")), of(at(1, "R?"), at(2, "new"))
    assert [(place.line, other.line) for place, other in validation.shared(training)] == [(1, 2)]
    assert list(of().shared(training)) == list(training.shared(of())) == list(of().repeated()) == []


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5)))
def test_as_many_are_repeated_as_are_not_new(numbers: list[int]) -> None:
    found = repeated(*(at(line, str(number)) for line, number in enumerate(numbers)))
    assert len(found) == len(numbers) - len(set(numbers))
    assert all(exact and numbers.index(numbers[line]) == first for line, first, exact in found)
