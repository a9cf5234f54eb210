"""What one request sees of the served adapters. For it the names of other keys do not exist."""

from __future__ import annotations

from collections.abc import Callable

from ..adapters.registry import LoadedAdapter
from ..contract.adapters import AdapterRef, AdapterState
from ..contract.errors import ModelNotFound, TunechatError
from .roster import Roster
from .titles import Titles


class View:
    """The served versions whose owner `sees` accepts, by every name that they have."""

    def __init__(self, roster: Roster, titles: Titles, sees: Callable[[str], bool]) -> None:
        self._roster = roster
        self._titles = titles
        self._sees = sees

    def acquire(self, text: str) -> AdapterRef:
        """The version that `text` means now, which stays until it is released. Raises ModelNotFound."""
        return self._roster.acquire(self.meaning(text))

    def release(self, ref: AdapterRef) -> None:
        """One user less."""
        self._roster.release(ref)

    def meaning(self, text: str) -> str:
        """The name or id that `text` stands for. Raises ModelNotFound, InvalidRequest for no name at all."""
        meant = self._titles.meaning(text)
        if not self._sees(self._titles.owner_of(meant)):
            raise ModelNotFound(f"adapter {text[:80]} is not loaded", param="model")
        return meant

    def find(self, text: str) -> AdapterRef | None:
        """The version that a request for `text` would get now; None when it would get none."""
        try:
            return self._roster.find(self.meaning(text))
        except TunechatError:
            return None

    def knows(self, text: str) -> bool:
        """Whether a request may ask for `text` now."""
        return self.find(text) is not None

    def served(self) -> list[LoadedAdapter]:
        """Every version that requests may ask for, but checkpoints of jobs."""
        return [
            one
            for one in self._roster.all()
            if one.state is AdapterState.LOADED
            and self._sees(self._titles.owner_of(one.ref.name))
            and not self._titles.is_checkpoint(one.ref.name)
        ]

    def tuned(self) -> list[tuple[str, AdapterRef]]:
        """The fine-tuned models of finished jobs, by name."""
        return [(name, ref) for name, identity in self._titles.tuned() if (ref := self.find(identity)) is not None]
