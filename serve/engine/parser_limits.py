"""What llguidance may spend on a grammar and on a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLParserLimits


def parser_limits() -> LLParserLimits:
    """The limits of every matcher, in llguidance's own measures of work.

    With these the lexer of a grammar is made within some 50 ms, and a mask within some 80 ms, both without the
    interpreter's lock; what they do not bound, `grammar_trial` does. States bound memory: about 6 MB for a grammar.
    """
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=100_000,
        step_lexer_fuel=50_000,
        step_max_items=20_000,
        max_items_in_row=2_000,
        max_lexer_states=25_000,
        max_grammar_size=300_000,
        verbose_errors=False,
    )
