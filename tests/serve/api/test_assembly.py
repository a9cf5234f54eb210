"""Tokens to text that may be shown, against cutting the whole text at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.assembly import SequenceText
from tunechat.serve.api.events import Delta, Finished, ScoredToken
from tunechat.serve.contract.messages import SequenceOutput
from tunechat.serve.text import ModelText, StopMatcher
from tunechat.tests.serve.api.harness import score

TEXTS = st.text(alphabet="ab é漢👍", max_size=30)
STOPS = st.lists(st.text(alphabet="ab é漢👍", min_size=1, max_size=4), max_size=16)


def run(
    text: ModelText, tokens: list[int], stops: list[str], sizes: list[int], *, scored: bool, min_tokens: int = 0
) -> tuple[str, str, list[ScoredToken], int]:
    """Text, finish reason, scores and token count of `tokens` fed in pieces of `sizes`."""
    matcher = StopMatcher(stops) if stops else None
    sequence = SequenceText(0, text.detokenizer(), stops=matcher, min_tokens=min_tokens)
    shown, scores, reason = "", [], ""
    rest = list(tokens)
    while not sequence.finished:
        size = sizes.pop() if sizes else 1
        piece, rest = rest[:size], rest[size:]
        last = not rest
        output = SequenceOutput(
            sequence="s",
            tokens=piece,
            logprobs=[score(token, 1) for token in piece] if scored else None,
            finish="length" if last else None,
        )
        for event in sequence.feed(output):
            if isinstance(event, Finished):
                reason = event.reason
            else:
                assert isinstance(event, Delta)
                shown += event.text
                scores += event.scored
                assert not scored or all(one.offset <= len(shown) for one in scores)
    return shown, reason, scores, sequence.tokens


@given(TEXTS, STOPS, st.lists(st.integers(1, 5), max_size=20), st.booleans())
def test_the_text_is_the_one_before_the_first_stop(
    text: ModelText, answer: str, stops: list[str], sizes: list[int], scored: bool
) -> None:
    tokens = text.encode(answer)
    shown, reason, scores, count = run(text, tokens, stops, sizes, scored=scored)
    cuts = [answer.find(stop) for stop in stops if stop in answer]
    expected = answer[: min(cuts)] if cuts else answer
    assert shown == expected
    assert reason == ("stop" if cuts else "length")
    assert not any(stop in shown for stop in stops)
    assert count <= len(tokens)
    if scored:
        # Byte tokens: one score a byte of what is shown, in order.
        assert bytes(b for one in scores for b in text.token_bytes(one.token)) == expected.encode()
        assert [one.offset for one in scores] == sorted(one.offset for one in scores)


@given(TEXTS, st.lists(st.integers(1, 5), max_size=20))
def test_the_cutting_into_pieces_does_not_matter(text: ModelText, answer: str, sizes: list[int]) -> None:
    tokens = text.encode(answer)
    assert run(text, tokens, ["ab", "é漢"], sizes, scored=False) == run(text, tokens, ["ab", "é漢"], [], scored=False)


def test_stop_strings_wait_for_the_least_number_of_tokens(text: ModelText) -> None:
    shown, reason, _, _ = run(text, text.encode("abab ab"), ["ab"], [], scored=False, min_tokens=5)
    assert (shown, reason) == ("abab ", "stop")


def test_half_a_character_at_the_end_is_shown_once(text: ModelText) -> None:
    tokens = text.encode("é")[:1]
    shown, _, scores, _ = run(text, tokens, ["x"], [], scored=True)
    assert shown == "�"
    assert len(scores) == 1


def test_a_stop_token_counts_and_shows_nothing(text: ModelText) -> None:
    sequence = SequenceText(3, text.detokenizer())
    events = list(sequence.feed(SequenceOutput(sequence="s", tokens=text.encode("a"), finish="stop", stop_token=1)))
    assert events == [Delta(3, "a"), Finished(3, "stop")]
    assert sequence.tokens == 2
