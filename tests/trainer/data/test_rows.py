"""Data sets as rows: nothing is cut, and what is left out is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunechat.serve.contract.errors import InvalidSample, ModelError
from tunechat.serve.text import ModelText
from tunechat.serve.text.dialects import choose_dialect
from tunechat.trainer.data.mask import AnswerMask
from tunechat.trainer.data.plain_rows import plain_rows
from tunechat.trainer.data.preview import as_text, pieces
from tunechat.trainer.data.rows import TooLong, make_rows
from tunechat.trainer.data.sample import Conversation, Place, PlainText

from .conftest import make_model

Models = Callable[[str], ModelText]


def place(line: int) -> Place:
    return Place("d.jsonl", line)


def chat(line: int, said: str, **fields: object) -> Conversation:
    answer = {"role": "assistant", "content": said, **fields}
    return Conversation([{"role": "user", "content": "hello"}, answer], place(line))


@pytest.fixture
def mask(model_text: Models) -> AnswerMask:
    text = model_text("chatml")
    return AnswerMask(text, choose_dialect(text))


def test_tells_what_is_left_out(mask: AnswerMask) -> None:
    samples = [chat(1, "yes"), chat(2, "word " * 80), chat(3, "no", weight=0), chat(4, "x", weight=-1)]
    found = make_rows(samples, mask, 64)
    assert len(found.rows) == 1
    assert [row.place for row in found.too_long] == [place(2)]
    assert found.too_long[0].tokens > 64
    assert found.silent == [place(3)]
    assert [str(error).partition(": ")[0] for error in found.refused] == ["d.jsonl:4"]
    assert found.trained == found.rows[0].trained < found.tokens


def test_check_refuses_unless_it_may_drop(mask: AnswerMask) -> None:
    found = make_rows([chat(1, "yes"), chat(2, "word " * 80)], mask, 64)
    with pytest.raises(InvalidSample, match=r"d.jsonl:2: \d+ tokens do not fit into max_length 64, .*too_long=drop"):
        found.check()
    found.check(drop_too_long=True)
    with pytest.raises(InvalidSample, match="nothing to learn"):
        make_rows([chat(3, "no", weight=0)], mask, 64).check()
    with pytest.raises(InvalidSample, match=r"d.jsonl:4: .*weight.*1 more samples are refused"):
        make_rows([chat(4, "x", weight=-1), chat(5, "x", weight=-1)], mask, 64).check()


def test_rows_of_exactly_max_length_fit(mask: AnswerMask) -> None:
    (row,) = make_rows([chat(1, "yes")], mask, 4096).rows
    assert len(make_rows([chat(1, "yes")], mask, len(row.tokens)).rows) == 1
    assert make_rows([chat(1, "yes")], mask, len(row.tokens) - 1).too_long == [TooLong(place(1), len(row.tokens))]


def test_plain_text_fills_rows_to_the_brim(model_text: Models) -> None:
    text = model_text("chatml")
    samples = [
        PlainText("The quick <|im_end|> fox. " * 5, place(1)),
        PlainText("", place(2)),
        PlainText("Hello!", place(3)),
    ]
    rows = list(plain_rows(samples, text, 16))
    assert all(len(row.tokens) == 16 for row in rows[:-1])
    assert 1 < len(rows[-1].tokens) <= 16
    tokens = [token for row in rows for token in row.tokens.tolist()]
    end = text.eos_token_ids[0]
    assert tokens == [*text.encode(samples[0].text), end, *text.encode("Hello!"), end]
    assert tokens.count(end) == 2
    assert all(row.weights.tolist() == [0] + [1] * (len(row.tokens) - 1) for row in rows)


def test_plain_text_needs_an_end() -> None:
    with pytest.raises(ModelError, match="ends a text"):
        list(plain_rows([PlainText("a", place(1))], make_model("bare", ends=()), 16))


def test_conversations_and_plain_text_mix(mask: AnswerMask) -> None:
    found = make_rows([PlainText("Hello! " * 9, place(1)), chat(2, "yes")], mask, 32)
    assert len(found.rows) > 1
    assert found.rows[0].weights[1] == 0 and found.rows[1].weights[1] == 1


def test_previews_what_is_learned(mask: AnswerMask) -> None:
    (row,) = mask.rows(chat(1, "I am é😀."))
    shown = as_text(row, mask.text, begin="[[", end="]]")
    assert shown.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n[[I am é😀.<|im_end|>]]")
    (sample,) = pieces(row, mask.text)
    assert [piece.weight for piece in sample] == [0, 1]
    assert sum(piece.tokens for piece in sample) == len(row.tokens)
