"""The recipes that come with tunechat: files to read, change and keep."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from ..serve.contract.errors import NotFound

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True, slots=True)
class ReadyMade:
    """A recipe that comes with tunechat; `about` is its first line."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def about(self) -> str:
        return self.text.split("\n", 1)[0].removeprefix("#").strip()


def ready_made() -> list[ReadyMade]:
    """All of them, by name."""
    return [ReadyMade(path.stem, path) for path in sorted(FOLDER.glob("*.yml"))]


def find_ready_made(name: str) -> ReadyMade:
    """The one called `name`. Raises NotFound, with the nearest name, where there is none."""
    known = {recipe.name: recipe for recipe in ready_made()}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"These are: {', '.join(known)}."
    raise NotFound(f"There is no ready-made recipe {name[:80]!r}; {hint}", param="name")
