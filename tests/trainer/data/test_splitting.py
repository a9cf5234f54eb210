"""What measures is never learned from, and the same samples measure whenever it is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunechat.trainer.data.sample import Conversation, Place, PlainText, Sample
from tunechat.trainer.data.splitting import split


def sample(number: int, line: int) -> Sample:
    place = Place("d.jsonl", line)
    if number % 2:
        return PlainText(f"text {number}", place)
    chat = [{"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": "a"}]
    return Conversation(chat, place)


def said(sample: Sample) -> str:
    return sample.text if isinstance(sample, PlainText) else str(sample.messages)


numbers = st.lists(st.integers(0, 30), max_size=40)


@given(numbers=numbers, part=st.floats(0, 0.5), seed=st.integers(0, 3))
def test_parts_without_overlap_and_without_loss(numbers: list[int], part: float, seed: int) -> None:
    samples = [sample(number, line) for line, number in enumerate(numbers, start=1)]
    learned, held = split(samples, part, seed)
    assert sorted([*learned, *held], key=lambda item: item.place.line) == samples
    assert not {said(item) for item in learned} & {said(item) for item in held}
    if part == 0 or len(set(numbers)) < 2:
        assert held == []
    else:
        assert learned and held
    if len(set(numbers)) == len(numbers) > 1 and part > 0:
        assert len(held) == max(1, min(round(part * len(numbers)), len(numbers) - 1))


@given(numbers=numbers)
def test_order_does_not_matter(numbers: list[int]) -> None:
    samples = [sample(number, 1) for number in numbers]
    forward, backward = split(samples, 0.3, 1)[1], split(samples[::-1], 0.3, 1)[1]
    assert {said(item) for item in forward} == {said(item) for item in backward}


def test_seeds_part_differently() -> None:
    samples = [sample(number, 1) for number in range(60)]
    assert split(samples, 0.2, 1) == split(samples, 0.2, 1)
    assert split(samples, 0.2, 1) != split(samples, 0.2, 2)
