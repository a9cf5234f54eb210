"""What is shown of samples, and how much."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import ConfigError, InvalidData
from tunechat.serve.contract.inquiry import AskPreview, Previewed
from tunechat.tests.trainer.inquiry.conftest import Write, chat
from tunechat.trainer.inquiry.previewing import preview_data


def text_of(found: Previewed) -> list[str]:
    return [
        "".join(f"«{piece.text}»" if piece.trained else piece.text for row in sample.rows for piece in row.pieces)
        for sample in found.samples
    ]


def test_what_is_learned_is_marked(entry: str, write: Write) -> None:
    found = preview_data(AskPreview(recipe={"data": write(chat("hi", "ho"), chat("a", "b"))}, entry=entry, limit=1))
    assert text_of(found) == ["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«ho<|im_end|>»"]
    assert (found.format, found.more, found.samples[0].line) == ("openai", True, 1)
    row = found.samples[0].rows[0]
    assert (row.tokens, row.trained_tokens) == (sum(piece.tokens for piece in row.pieces), 3)
    rest = preview_data(AskPreview(recipe={"data": write(chat("hi", "ho"), chat("a", "b"))}, entry=entry, skip=1))
    assert (len(rest.samples), rest.samples[0].line, rest.more) == (1, 2, False)


def test_samples_that_are_wrong_stand_in_their_places(entry: str, write: Write) -> None:
    found = preview_data(AskPreview(recipe={"data": write(chat("a", "b"), "no", chat("c", "d"))}, entry=entry))
    assert [sample.error is None for sample in found.samples] == [True, False, True]
    assert ":2: " in (found.samples[1].error or "")


def test_what_is_long_is_cut_and_said_to_be(entry: str, write: Write) -> None:
    found = preview_data(AskPreview(recipe={"data": write(chat("a" * 40_000, "b"))}, entry=entry))
    row = found.samples[0].rows[0]
    assert row.cut and not row.fits and row.tokens > 40_000
    assert sum(len(piece.text) for piece in row.pieces) <= 32_768


def test_all_samples_together_are_bounded(entry: str, write: Write) -> None:
    path = write(*[chat("a" * 32_768, "b")] * 40)
    found = preview_data(AskPreview(recipe={"data": path}, entry=entry, limit=100))
    assert sum(map(len, text_of(found))) < (1 << 20) + 40_000
    assert found.more


@pytest.mark.parametrize(
    ("text", "name", "form", "shown"),
    [
        ("question,answer\nwho?,me\n", "faq.csv", "question-answer", "«me<|im_end|>»"),
        ("Just text.", "", "text", "«ust text.<|im_end|>»"),
        ('[{"instruction": "a", "output": "b"}]', "", "alpaca", "«b<|im_end|>»"),
    ],
)
def test_texts_are_read_as_what_they_look_like(entry: str, text: str, name: str, form: str, shown: str) -> None:
    found = preview_data(AskPreview(text=text, text_name=name, entry=entry))
    assert found.format == form
    assert text_of(found)[0].endswith(shown)


def test_what_cannot_be_shown_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="prepared model"):
        preview_data(AskPreview(text="x"))
    with pytest.raises(ConfigError) as caught:
        preview_data(AskPreview(text="x", text_name="../../x.exe", entry=entry))
    assert caught.value.param == "text_name"
    with pytest.raises(ConfigError) as caught:
        preview_data(AskPreview(text="x", recipe={"format": "alpacca"}, entry=entry))
    assert caught.value.param == "format"
    with pytest.raises(InvalidData, match=r"^text\.jsonl"):
        preview_data(AskPreview(text='{"what": 1}', entry=entry))
