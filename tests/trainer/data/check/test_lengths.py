"""Tokens as they are trained, and the answer that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.contract.errors import InvalidSample
from tunechat.serve.text.dialects import choose_dialect
from tunechat.serve.text.model_text import ModelText
from tunechat.tests.trainer.data.writing import chat
from tunechat.trainer.data.check.lengths import Length, Measure, measure_of, not_learnable, too_long
from tunechat.trainer.data.sample import Conversation, Place, PlainText, Sample


def words(sample: Sample) -> Length:
    """Ten words a message that is not empty."""
    assert isinstance(sample, Conversation)
    return Length(10 * len(sample.messages), 10)


Q, A = ("user", "q"), ("assistant", "a")


def test_the_first_answer_that_does_not_fit_is_named() -> None:
    sample = chat(Q, A, Q, A, Q, A)
    assert too_long(sample, words, words(sample), 60) is None
    found = too_long(sample, words, words(sample), 30)
    assert found is not None and found.field == "messages[3]" and found.kind == "too_long"
    assert "ends at token 40, and the length is 30" in found.what and "raise it to 60" in found.mend


def test_answers_that_are_not_learned_need_not_fit() -> None:
    sample = chat(Q, {"role": "assistant", "content": "a", "weight": 0}, Q, A)
    found = too_long(sample, words, words(sample), 10)
    assert found is not None and found.field == "messages[3]"


def test_errors_of_the_model_lose_their_place_once() -> None:
    sample = chat(A)
    found = not_learnable(sample, InvalidSample("data.jsonl:7: messages[0]: No.", param="messages[0]"))
    assert found.message.startswith("data.jsonl:7: messages[0]: the model cannot learn this: No;")


@pytest.fixture(scope="module")
def measure(default_entry: Path) -> Measure:
    text = ModelText.load(default_entry)
    return measure_of(text, choose_dialect(text))


def test_measures_as_the_model_reads(measure: Measure, default_entry: Path) -> None:
    text = ModelText.load(default_entry)
    length = measure(chat(("user", "How are you?"), ("assistant", "Fine, thanks.")))
    # The answer and the token that ends it.
    assert length.learned == len(text.encode("Fine, thanks.")) + 1
    assert length.tokens > length.learned + 5
    assert measure(PlainText("Once upon a time", Place("f", 1))).tokens == len(text.encode("Once upon a time"))


def test_what_the_model_cannot_learn(measure: Measure) -> None:
    with pytest.raises(InvalidSample):
        measure(chat(A))
