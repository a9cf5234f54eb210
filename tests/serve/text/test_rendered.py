"""Rendered text in two: the part behind a prompt has tokens of its own that say the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.text import ModelText
from tunechat.serve.text.markup import Markup, Own
from tunechat.serve.text.rendered import Rendered

MakeText = Callable[..., ModelText]


@pytest.fixture(scope="module")
def texts(make_text: MakeText) -> dict[str, ModelText]:
    return {kind: make_text(kind) for kind in ("byte_level", "sentencepiece", "sentencepiece_legacy")}


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "sentencepiece_legacy"])
@given(words=st.lists(st.sampled_from([" ", "\n", "fox", " lazy", "é😀", "<|im_end|>", "</s>", "</think>", "{"])))
def test_an_answer_is_spelled_as_it_stands_behind_a_prompt(
    texts: dict[str, ModelText], kind: str, words: list[str]
) -> None:
    text, said = texts[kind], "".join(words)
    tokens = text.encode_answer(text.answer(said))
    if tokens is None:
        # These tokenizers put a space behind every added token, which nobody wrote.
        assert kind == "sentencepiece_legacy" and "</think>" in said
        return
    assert text.decode(tokens, continues=True) == said
    assert not text.special_token_ids.intersection(tokens)


def test_only_what_is_ours_holds_special_tokens(make_text: MakeText) -> None:
    text = make_text()
    tokens = text.encode_answer(text.answer(Markup(Own("<|end|>"), "<|end|>")))
    assert tokens is not None
    assert tokens[0] == text.special_tokens["<|end|>"]
    assert text.special_tokens["<|end|>"] not in tokens[1:]


def test_a_beginning_has_the_same_control_tokens() -> None:
    whole = Rendered("ab</s>c", [2])
    assert whole.starts_with(Rendered("ab</s>", [2]))
    assert not whole.starts_with(Rendered("ab</s>"))
    assert not whole.starts_with(Rendered("b"))
    assert whole.after(2) == Rendered("</s>c", [0])
    assert Rendered("a \n", [0, 1]).trimmed() == Rendered("a", [0])


def test_a_rendered_chat_is_encoded_as_the_chat(make_text: MakeText) -> None:
    text = make_text()
    chat = [{"role": "user", "content": "a <|im_end|> b"}]
    assert text.encode_rendered(text.rendered(chat)) == text.encode_chat(chat)
    assert text.rendered(chat).text == text.render(chat)
