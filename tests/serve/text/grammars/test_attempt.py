from __future__ import annotations

import llguidance
import pytest

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text.grammars import read_structured_outputs
from tunechat.serve.text.grammars.attempt import problem_of


class PanicException(BaseException):
    """By its name, what a panic in Rust arrives as."""


def panicking(error: BaseException) -> type:
    class Matcher:
        grammar_from_regex = staticmethod(str)

        @staticmethod
        def validate_grammar_with_warnings(*arguments: object, **options: object) -> tuple[bool, list[str]]:
            raise error

    return Matcher


def test_what_is_wrong_is_told() -> None:
    assert problem_of("start: /a/") == ""
    assert "a" in problem_of("start: a")


def test_a_panic_is_a_problem_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llguidance, "LLMatcher", panicking(PanicException("unwrap")))
    with pytest.raises(InvalidRequest, match="cannot be read") as caught:
        read_structured_outputs({"regex": "never asked before"}, "s")
    assert caught.value.param == "s.regex"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), MemoryError()])
def test_nothing_else_is_swallowed(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(llguidance, "LLMatcher", panicking(error))
    with pytest.raises(type(error)):
        problem_of("start: /a/")
