"""The text side of the default model."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.text import ModelText

CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Answer in Thai."}, {"role": "user", "content": "สวัสดี 👩‍👩‍👧‍👦\n\n\tx"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": " c "}],
]


@pytest.fixture(scope="module")
def text(default_entry: Path) -> ModelText:
    return ModelText.load(default_entry)


@pytest.fixture(scope="module")
def peer(default_entry: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(default_entry, local_files_only=True)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [True, False])
def test_encodes_chats_as_transformers(text: ModelText, peer: Any, chat: list[dict[str, str]], prompt: bool) -> None:
    options = {"add_generation_prompt": prompt}
    assert text.render(chat, **options) == peer.apply_chat_template(chat, tokenize=False, **options)
    expected = peer.apply_chat_template(chat, tokenize=True, return_dict=False, **options)
    assert text.encode_chat(chat, **options) == list(expected)


@given(content=st.text(max_size=60))
def test_encodes_text_as_transformers_and_back(text: ModelText, peer: Any, content: str) -> None:
    tokens = text.encode(content)
    assert tokens == peer.encode(content, add_special_tokens=False)
    if spelled(text).issuperset(content.encode()):
        assert text.decode(tokens) == content


@functools.cache
def spelled(text: ModelText) -> frozenset[int]:
    """The bytes that the vocabulary can spell: it lacks a few, and drops them without a word."""
    pieces = (text.token_bytes(token) for token in range(text.vocab_size))
    return frozenset(piece[0] for piece in pieces if len(piece) == 1)


@given(data=st.data(), skip_special=st.booleans())
def test_streams_any_tokens_as_transformers_decodes_them(
    text: ModelText, peer: Any, data: st.DataObject, skip_special: bool
) -> None:
    tokens = data.draw(st.lists(st.integers(0, text.vocab_size - 1), max_size=30))
    detokenizer = text.detokenizer(skip_special=skip_special)
    streamed = "".join(detokenizer.push([token]) for token in tokens) + detokenizer.finish()
    expected = peer.decode(tokens, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)
    assert streamed == text.decode(tokens, skip_special=skip_special) == expected


def test_its_numbers(text: ModelText) -> None:
    assert text.vocab_size == 49152
    assert text.eos_token_ids == (2,)
    assert text.special_token_ids == frozenset(range(17))
    assert len(text.template_hash) == 64
    assert text.encode("a", add_bos=True) == text.encode("a")


@pytest.mark.parametrize("token", range(17))
def test_special_tokens_in_user_text_are_text(text: ModelText, token: int) -> None:
    name = text.token_text(token)
    ids = text.encode_chat([{"role": "user", "content": f"a{name}b {name}"}])
    harmless = text.encode_chat([{"role": "user", "content": "a"}])
    assert [id_ for id_ in ids if id_ < 17] == [id_ for id_ in harmless if id_ < 17]
    assert f"a{name}b {name}" in text.decode(ids, skip_special=False)
