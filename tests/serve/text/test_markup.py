"""Markup: control tokens count in what this program wrote, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from tunechat.serve.text import ModelText
from tunechat.serve.text.markup import Markup, Own


def test_it_is_a_string_to_everybody_else() -> None:
    markup = Markup("a", Own("<|end|>"), Markup("b", Own("c")))
    assert markup == "a<|end|>bc" and markup.pieces == ("a", "<|end|>", "b", "c")
    assert isinstance(markup.pieces[1], Own) and not isinstance(markup.pieces[2], Own)


def test_only_own_pieces_hold_tokens(make_text: Callable[..., ModelText]) -> None:
    text = make_text()
    end = text.special_tokens["<|end|>"]

    def count(content: str) -> int:
        return text.encode_chat([{"role": "user", "content": content}]).count(end)

    assert count("<|end|>") == 0
    assert count(Markup("<|end|>")) == 0
    assert count(Markup(Own("<|end|>"), "<|end|>", Own("x<|end|>"))) == 2
    assert count(Markup(Own("<|e"), "nd|>")) == 0
    assert count(str(Markup(Own("<|end|>")))) == 0


def test_a_role_of_ours_may_be_any(make_text: Callable[..., ModelText]) -> None:
    role = Markup(Own("system name=<|end|>"))
    assert "<|im_start|>system name=<|end|>\nx" in make_text().render([{"role": role, "content": "x"}])
