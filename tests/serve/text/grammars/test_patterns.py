from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text.grammars.patterns import MAX_EXPANDED, check_pattern, expanded_length


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        ("", 0),
        ("abc", 3),
        ("a{3}", 3),
        ("a{2,5}b", 6),
        ("a{2,}b", 3),
        ("(a{10}b){10}", 110),
        ("(a{10}){10}{10}", 1000),
        (r"\{[{}]{4}\p{L}{3}", 8),
        ("[]()]{5}", 5),
        ("[^])[a]]{5}", 5),
        ("([])]a{100}){100}", 10_100),
        ("a+{7}|b", 8),
    ],
)
def test_repetitions_are_written_out(pattern: str, length: int) -> None:
    assert expanded_length(pattern) == length


def test_hostile_counts_are_refused_before_they_are_compiled() -> None:
    for pattern in ("(a{1,500}b){1,500}", "((a{50}){50}){50}", "a{999999999999999999}", "(a{1000}){1000}"):
        with pytest.raises(InvalidRequest, match="repetitions") as caught:
            check_pattern(pattern, "p")
        assert caught.value.param == "p"
    check_pattern("[^x]{1,2000}", "p")
    check_pattern("(.{1,80}\\n){1,200}", "p")


pieces = st.sampled_from(["a", "b{3}", "[ab]{2,4}", r"\d", "(", ")", "(?:", "|", "{2}", "*", "+", "[", "]", "c?"])


@given(pattern=st.lists(pieces, max_size=12).map("".join), text=st.text("ab1c", max_size=40))
def test_no_text_that_must_match_is_longer(pattern: str, text: str) -> None:
    """Without `*` and `+`, no match is longer than the pattern written out."""
    if "*" in pattern or "+" in pattern or ",}" in pattern:
        return
    try:
        compiled = re.compile(pattern)
    except (re.error, FutureWarning):
        return
    if compiled.fullmatch(text):
        assert len(text) <= expanded_length(pattern) <= MAX_EXPANDED * 100
