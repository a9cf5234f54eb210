"""Regular expressions of requests, tried before they are handed on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ...contract.errors import InvalidRequest

MAX_PATTERN = 2_000
MAX_TOLD = 200


def check_pattern(pattern: Any, path: str) -> None:
    """Raise InvalidRequest, with the path, where `pattern` is not a regular expression that a grammar can hold."""
    if not isinstance(pattern, str):
        raise InvalidRequest("A pattern must be a string.", param=path)
    if len(pattern) > MAX_PATTERN:
        raise InvalidRequest(f"A pattern may have {MAX_PATTERN} characters.", param=path)
    problem = _problem(pattern)
    if problem:
        raise InvalidRequest(
            f"This pattern cannot be used: {problem} Look-around and back-references are not supported.", param=path
        )


@lru_cache(maxsize=1024)
def _problem(pattern: str) -> str:
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(LLMatcher.grammar_from_regex(pattern), limits=limits())
    if not failed:
        return ""
    told = " ".join(messages[0].partition("\n   1 |")[0].rpartition("error:")[2].split())
    return told[:MAX_TOLD] + "."


@lru_cache(maxsize=1)
def limits() -> Any:
    """What the first look at a grammar may cost: some ten milliseconds at the most."""
    from llguidance import LLParserLimits

    return LLParserLimits(initial_lexer_fuel=500_000, max_grammar_size=200_000, verbose_errors=False)
