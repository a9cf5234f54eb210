"""Whose each stored name is, and what else its versions are called. In memory: requests never wait for the disk."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ..adapters.names import parse_id
from ..adapters.store import UNKNOWN_OWNER, StoredAdapter
from ..adapters.tuned_names import JOB, is_checkpoints, parse_tuned, tuned_name
from ..contract.errors import ModelNotFound


class Titles:
    """What the store says of names. `bases` are the names of the base, its own first."""

    def __init__(self, bases: Iterable[str]) -> None:
        self.bases = tuple(bases)
        self._stored: dict[str, StoredAdapter] = {}

    def note(self, stored: StoredAdapter) -> None:
        """Remembers what is stored under a name now."""
        self._stored[stored.name] = stored

    def forget(self, name: str, numbers: Collection[int]) -> None:
        """Forgets removed versions, and with the last one the name: it is free again."""
        stored = self._stored.pop(name, None)
        if stored is None:
            return
        versions = tuple(version for version in stored.versions if version.number not in numbers)
        if versions:
            labels = {label: number for label, number in stored.labels.items() if number not in numbers}
            self._stored[name] = replace(stored, versions=versions, labels=labels)

    def owner(self, name: str) -> str | None:
        """Whose name it is; None when nothing is stored under it."""
        stored = self._stored.get(name)
        return None if stored is None else stored.owner

    def owner_of(self, text: str) -> str:
        """Whose "support" or "support@3" is. What is not stored is nobody's that a key makes known."""
        stored = self._stored.get(parse_id(text)[0])
        return UNKNOWN_OWNER if stored is None else stored.owner

    def meaning(self, text: str) -> str:
        """The name or the version's id that `text` stands for. Raises ModelNotFound for `ft:` names of nothing."""
        if not text.startswith("ft:"):
            return text
        tuned = parse_tuned(text)
        if tuned is not None and tuned.base in self.bases:
            stored = self._stored.get(tuned.adapter)
            number = None if stored is None else tuned.number(stored.labels)
            if number is not None:
                return f"{tuned.adapter}@{number}"
        raise ModelNotFound(f"there is no {text[:80]}", param="model")

    def is_checkpoint(self, name: str) -> bool:
        """Whether the versions of `name` are checkpoints of a job."""
        stored = self._stored.get(name)
        return stored is not None and is_checkpoints(stored.labels)

    def tuned(self) -> list[tuple[str, str]]:
        """The fine-tuned models that jobs have finished, by name: each with its version's id."""
        found = []
        for name, stored in self._stored.items():
            for label, number in stored.labels.items():
                if label.startswith(JOB):
                    found.append((tuned_name(self.bases[0], name, label), f"{name}@{number}"))
        return sorted(found)
