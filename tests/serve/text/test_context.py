"""The context limit, at its edges."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import ContextLengthExceeded
from tunechat.serve.text.context import check_context


@pytest.mark.parametrize(
    ("prompt", "asked", "granted"),
    [(10, 90, 90), (10, 89, 89), (10, None, 90), (99, 1, 1), (99, None, 1), (0, None, 100)],
)
def test_what_fits_is_granted(prompt: int, asked: int | None, granted: int) -> None:
    assert check_context(prompt, asked, 100) == granted


@pytest.mark.parametrize(
    ("prompt", "asked", "numbers"),
    [
        (10, 91, ("10", "91", "101", "100")),
        (99, 2, ("99", "101", "100")),
        (100, 1, ("100",)),
        (101, None, ("101", "100")),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    prompt: int, asked: int | None, numbers: tuple[str, ...]
) -> None:
    with pytest.raises(ContextLengthExceeded) as raised:
        check_context(prompt, asked, 100, param="prompt")
    assert raised.value.record.http_status == 400
    assert raised.value.record.code == "context_length_exceeded"
    assert raised.value.param == "prompt"
    assert all(number in raised.value.message for number in numbers)
