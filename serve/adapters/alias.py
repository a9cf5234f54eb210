"""Which version a bare name means, kept in a file that is replaced whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..contract.errors import TunechatError
from .durable import replace_synced

ALIAS = "alias.json"
_FORMAT = 1
_HISTORY = 100


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """`history` ends with the current version and says what was current before it. `last` is the highest number ever
    given, so that no number is given twice. `pinned` versions are not removed. `owner` is the tenant whose name it is,
    "" for everybody's. `labels` are other names of versions; one may name a number that was never stored, when its
    writer died."""

    format: int = _FORMAT
    last: int = 0
    history: tuple[int, ...] = ()
    pinned: tuple[int, ...] = ()
    owner: str = ""
    labels: dict[str, int] = {}

    @property
    def current(self) -> int | None:
        return self.history[-1] if self.history else None

    def moved(self, number: int) -> Alias:
        """The alias on `number`, which is what it was on before when that is the same."""
        if number == self.current:
            return self
        return msgspec.structs.replace(
            self, history=(*self.history[-_HISTORY + 1 :], number), last=max(self.last, number)
        )

    def labelled(self, label: str, number: int) -> Alias:
        """The alias with `label` as another name of version `number`; the same without a label."""
        labels = self.labels | {label: number} if label else self.labels
        return msgspec.structs.replace(self, labels=labels, last=max(self.last, number))

    def without(self, numbers: set[int]) -> Alias:
        """The alias after these versions were removed."""
        return msgspec.structs.replace(
            self,
            history=_deduplicated(n for n in self.history if n not in numbers),
            pinned=tuple(n for n in self.pinned if n not in numbers),
            last=max(self.last, *numbers, 0),
            labels={label: number for label, number in self.labels.items() if number not in numbers},
        )


def read_alias(folder: Path) -> Alias:
    """The alias of the adapter in `folder`; an empty one when nothing was published yet."""
    try:
        alias = msgspec.json.decode((folder / ALIAS).read_bytes(), type=Alias)
    except FileNotFoundError:
        return Alias()
    except msgspec.MsgspecError as error:
        raise TunechatError(
            f"{ALIAS} of adapter {folder.name} is damaged: {error}. Remove it; the versions stay, and "
            "are everybody's then",
            code="store_damaged",
        ) from error
    if alias.format != _FORMAT:
        raise TunechatError(f"{ALIAS} of adapter {folder.name} is of format {alias.format}", code="store_damaged")
    return alias


def write_alias(folder: Path, alias: Alias) -> None:
    """Makes `alias` the one of the adapter in `folder`, at once for all readers."""
    replace_synced(folder / ALIAS, msgspec.json.encode(alias))


def _deduplicated(numbers: Iterable[int]) -> tuple[int, ...]:
    """`numbers` without repetitions side by side, which a removal in between may leave."""
    result: list[int] = []
    for number in numbers:
        if not result or result[-1] != number:
            result.append(number)
    return tuple(result)
