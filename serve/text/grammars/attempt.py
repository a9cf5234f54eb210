"""Grammars tried out, so that what is wrong with one is known before it is handed on."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

logger = logging.getLogger(__name__)

_UNREADABLE = "error: it cannot be read; write its alternatives in another way"


def problem_of(grammar: str) -> str:
    """What llguidance finds wrong with a grammar, in its own words; "" is nothing."""
    from llguidance import LLMatcher

    try:
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, limits=limits())
    except BaseException as error:
        # Some unions of letters make it panic, which arrives as an exception that is no Exception.
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        logger.warning("llguidance panicked over a grammar of %d characters: %s", len(grammar), error)
        return _UNREADABLE
    return messages[0] if failed else ""


@lru_cache(maxsize=1)
def limits() -> Any:
    """What the first look at a grammar may cost: some ten milliseconds at the most."""
    from llguidance import LLParserLimits

    return LLParserLimits(initial_lexer_fuel=100_000, max_grammar_size=200_000, verbose_errors=False)
