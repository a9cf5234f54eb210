"""Streams of tokens against the text of all of them, and against the tokenizer's own decoding."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from tunechat.serve.contract.errors import ModelError
from tunechat.serve.text import Detokenizer, ModelText
from tunechat.serve.text.decoder import TokenDecoder

from .conftest import KINDS, make_tokenizer

TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["👩‍👩‍👧‍👦", "ไทย", "你好", "e\u0301", " ", "\n", "a", "\ufffd", "</s>", "<0x41>", "▁"])
    ).map("".join),
)


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def text(kind: str, make_text: Callable[..., ModelText]) -> ModelText:
    return make_text(kind)


@pytest.fixture(scope="module")
def tokenizer(kind: str) -> Tokenizer:
    return make_tokenizer(kind)


def stream(detokenizer: Detokenizer, tokens: list[int], cuts: list[int]) -> str:
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    pieces = [detokenizer.push(tokens[start:end]) for start, end in itertools.pairwise(edges)]
    return "".join([*pieces, detokenizer.finish()])


@given(data=st.data(), skip_special=st.booleans(), continues=st.booleans())
def test_any_split_of_any_tokens_gives_the_whole_text(
    text: ModelText, data: st.DataObject, skip_special: bool, continues: bool
) -> None:
    tokens = data.draw(st.lists(st.integers(0, text.vocab_size + 3), max_size=40))
    cuts = data.draw(st.lists(st.integers(0, 40)))
    whole = text.decode(tokens, skip_special=skip_special, continues=continues)
    detokenizer = text.detokenizer(skip_special=skip_special, continues=continues)
    assert stream(detokenizer, tokens, cuts) == whole


@given(data=st.data(), skip_special=st.booleans())
def test_decodes_as_the_tokenizer_does(
    text: ModelText, tokenizer: Tokenizer, kind: str, data: st.DataObject, skip_special: bool
) -> None:
    tokens = data.draw(st.lists(st.integers(0, text.vocab_size - 1), max_size=40))
    # By ids, as tokenizers itself overlooks special tokens that went through the normalizer.
    shown = [token for token in tokens if not (skip_special and token in text.special_token_ids)]
    expected = tokenizer.decode(shown, skip_special_tokens=False)
    actual = text.decode(tokens, skip_special=skip_special)
    if kind == "byte_level" or "\ufffd" not in expected:
        assert actual == expected
    else:  # the tokenizer gives up a whole run of byte tokens for one wrong byte
        assert "\ufffd" in actual
        assert actual.count("\ufffd") <= expected.count("\ufffd")


@given(content=TEXTS, cuts=st.lists(st.integers(0, 200)))
def test_text_comes_back_whole(text: ModelText, kind: str, content: str, cuts: list[int]) -> None:
    tokens = text.encode(content)
    whole = stream(text.detokenizer(), tokens, cuts)
    if kind == "byte_level":
        assert whole == content
    elif kind != "unigram":  # whose vocabulary has no bytes to spell what it lacks
        assume("▁" not in content and not content.startswith(" "))  # both are spaces of its own there
        assert whole == content


def test_a_character_comes_when_it_is_whole(make_text: Callable[..., ModelText]) -> None:
    for kind in ("byte_level", "sentencepiece"):
        text = make_text(kind)
        tokens = text.encode("🎉")
        detokenizer = text.detokenizer(continues=True)
        pieces = [detokenizer.push([token]) for token in tokens]
        assert "".join(pieces).strip() == "🎉"
        assert pieces[-1].endswith("🎉")


def test_an_unfinished_character_is_one_replacement_at_the_end(make_text: Callable[..., ModelText]) -> None:
    text = make_text("byte_level")
    detokenizer = text.detokenizer()
    assert detokenizer.push(text.encode("é")[:1]) == ""
    assert detokenizer.finish() == "\ufffd"


def test_one_wrong_byte_spares_the_characters_around_it(make_text: Callable[..., ModelText]) -> None:
    text = make_text("sentencepiece")
    tokens = [3 + byte for byte in "你".encode() + b"\xff" + "好".encode()]
    assert text.decode(tokens) == "你\ufffd好"


@pytest.mark.parametrize("kind", ["sentencepiece", "sentencepiece_legacy", "unigram"])
def test_the_first_space_is_dropped_at_the_beginning_only(kind: str, make_text: Callable[..., ModelText]) -> None:
    text = make_text(kind)
    tokens = text.encode("fox")
    assert text.decode(tokens) == "fox"
    assert text.decode(tokens, continues=True) == " fox"
    assert text.decode([*tokens, *tokens]) == "fox fox"


def test_special_tokens_are_hidden_unless_asked_for(make_text: Callable[..., ModelText]) -> None:
    text = make_text("byte_level")
    tokens = text.encode("<think>a</think><|im_end|>", parse_special=True)
    assert text.decode(tokens) == "<think>a</think>"
    assert text.decode(tokens, skip_special=False) == "<think>a</think><|im_end|>"


def test_bytes_and_text_of_one_token(make_text: Callable[..., ModelText]) -> None:
    for kind in ("byte_level", "sentencepiece"):
        text = make_text(kind)
        tokens = text.encode("ü fox 🎉")
        data = b"".join(text.token_bytes(token) for token in tokens)
        assert data.decode().strip() == "ü fox 🎉"
    byte_level = make_text("byte_level")
    assert byte_level.token_bytes(byte_level.vocab_size + 5) == b""
    assert byte_level.token_bytes(-1) == b""
    (first, *_) = byte_level.encode("🎉")
    assert byte_level.token_text(first) == "\ufffd"


@pytest.mark.parametrize(
    "decoder",
    [decoders.WordPiece(), decoders.BPEDecoder(), decoders.CTC(), decoders.Sequence([decoders.Strip(" ", 1, 1)]), None],
)
def test_a_decoder_that_cannot_be_streamed_is_refused(decoder: decoders.Decoder | None) -> None:
    import json

    tokenizer = Tokenizer(models.BPE())
    if decoder is not None:
        tokenizer.decoder = decoder
    with pytest.raises(ModelError):
        TokenDecoder(json.loads(tokenizer.to_str())["decoder"])


def _seconds(text: ModelText, tokens: list[int]) -> float:
    started = time.process_time()
    detokenizer = text.detokenizer()
    for token in tokens:
        detokenizer.push([token])
    detokenizer.finish()
    return time.process_time() - started


def test_work_is_linear_in_the_number_of_tokens(make_text: Callable[..., ModelText]) -> None:
    text = make_text("byte_level")
    tokens = text.encode("The quick brown fox 🎉 ") * 200
    _seconds(text, tokens)
    once = min(_seconds(text, tokens) for _ in range(3))
    eightfold = min(_seconds(text, tokens * 8) for _ in range(3))
    assert eightfold < 32 * once
