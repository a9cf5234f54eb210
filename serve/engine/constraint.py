"""One sequence's place in its grammar, and which tokens may come next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..contract.errors import ErrorRecord

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from .grammar_compiler import CompiledGrammar


@dataclass(frozen=True, slots=True)
class Mask:
    """`bias` is float32 [vocab]: 0 for tokens that the grammar allows now, minus infinity for all others. `ends` are
    the ids that end the text, where they are allowed. To add takes a thirtieth of the time of numpy's masked writes."""

    bias: NDArray[np.float32]
    ends: NDArray[np.int64]


class Constraint:
    """The grammar of one sequence. Two threads take turns: `is_ready` says that it is the loop's.

    The loop calls `advance` with each token that was chosen, and from then on until `is_ready` it looks at nothing here
    but `is_ready`. Meanwhile another thread moves the matcher and writes `mask`; or leaves it None and writes `error`,
    or neither where the text is complete and nothing may follow it. `forced` are tokens that come before all that,
    because the grammar allowed one only in their places; it stays empty unless `may_force`.
    """

    def __init__(
        self,
        text: str,
        stop_token_ids: tuple[int, ...],
        order: Callable[[Constraint], None],
        *,
        may_force: bool = False,
    ) -> None:
        self.text = text
        self.stop_token_ids = stop_token_ids
        self.tokens: list[int] = []
        self.consumed = 0
        self.may_force = may_force
        self.forced: tuple[int, ...] = ()
        self.compiled: CompiledGrammar | None = None
        self.matcher: LLMatcher | None = None
        # A matcher that was copied from the compiled grammar shares what it learns with all other copies.
        self.is_private = False
        self.cost = 0.0
        self.mask: Mask | None = None
        self.error: ErrorRecord | None = None
        # The loop's own notes: whether a step went by without a mask, and whether anybody still wants one.
        self.is_late = False
        self.is_closed = False
        self._order = order
        self._ready = threading.Event()

    @property
    def is_compiled(self) -> bool:
        """Whether the sequence may begin."""
        return self.compiled is not None

    @property
    def is_ready(self) -> bool:
        """Whether `mask` and `error` speak of the token after the last, or after `forced`."""
        return self._ready.is_set()

    @property
    def is_over(self) -> bool:
        """Whether no token can follow: the text is complete, or `error` says what went wrong."""
        return self.is_ready and self.mask is None and not self.forced

    @property
    def is_held(self) -> bool:
        """Whether a step in vain is behind it, and the next would be in vain as well."""
        return self.is_late and not self.is_ready

    def begin(self, compiled: CompiledGrammar) -> None:
        """Have the first mask computed."""
        self.compiled = compiled
        self._order(self)

    def advance(self, token: int) -> None:
        """Have the mask of the token after this one computed, unless it was forced: then that was done already."""
        self.is_late = False
        self.tokens.append(token)
        if self.forced:
            self.forced = self.forced[1:]
            return
        self._ready.clear()
        self._order(self)

    def ends_with(self, token: int) -> bool:
        """Whether this token ends the text and is no part of it."""
        return self.compiled is not None and token in self.compiled.eos_token_ids

    def close(self) -> None:
        """Nobody wants any more masks."""
        self.is_closed = True

    def wait(self, seconds: float) -> bool:
        """Waits until it is ready; False if it is not within that time."""
        return self._ready.wait(max(0.0, seconds))

    def publish(self, mask: Mask | None = None, error: ErrorRecord | None = None, forced: tuple[int, ...] = ()) -> None:
        """Hand it over to the loop; for the thread that computes masks."""
        self.mask, self.error, self.forced = mask, error, forced
        self._ready.set()
