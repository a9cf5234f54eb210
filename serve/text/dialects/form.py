"""The shape in which a family of models writes calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from .tool import Call


@dataclass(frozen=True, slots=True)
class Form:
    """How calls stand in the text of a turn.

    `openers` begin a block of calls, the first of them is the one that is written; one that ends in `[` has the bracket
    of the array in it. `closer` ends a block; it may be missing in what a model writes. `lead` and `tail` are the white
    space inside a block. It holds one call, or a JSON array of calls where `listed`. `between` stands between two
    blocks, and `gap` between text and the first. `key` names the arguments. With
    `infix`, a call is no object but a name and the arguments, with this between them.

    `brief` says that models of the form were not trained to end their calls: what a schema leaves open gets a size.

    With `bare`, a turn that is calls and nothing else has no opener and no closer, and a block may hold several calls,
    with `between` between them.
    """

    openers: tuple[str, ...]
    closer: str = ""
    lead: str = ""
    tail: str = ""
    between: str = ""
    gap: str = ""
    key: str = "arguments"
    infix: str = ""
    listed: bool = False
    bare: bool = False
    brief: bool = False

    @property
    def opener(self) -> str:
        """The opener that is written, "" where the form has none."""
        return self.openers[0] if self.openers else ""

    @property
    def foot(self) -> str:
        """What stands behind the arguments."""
        return "" if self.infix else "}"

    def spelled(self, name: str) -> str:
        """The name of a tool as it stands in `head`."""
        return name if self.infix else json.dumps(name)[1:-1]

    def head(self, name: str) -> str:
        """The text of a call of `name` before its arguments."""
        if self.infix:
            return name + self.infix
        return f'{{"name": {json.dumps(name)}, {json.dumps(self.key)}: '

    def render(self, text: str, calls: Sequence[Call]) -> str:
        """A turn as the family writes it: text, then calls."""
        bodies = [f"{self.head(call.name)}{call.canonical()}{self.foot}" for call in calls]
        if not bodies:
            return text
        before = text + self.gap if text else ""
        if self.bare:
            body = self.between.join(bodies)
            return f"{before}{self.opener}{self.lead}{body}{self.tail}{self.closer}" if text else body
        opener = self.opener
        if self.listed:
            opener = opener.removesuffix("[")
            bodies = [f"[{', '.join(bodies)}]"]
        return before + self.between.join(f"{opener}{self.lead}{body}{self.tail}{self.closer}" for body in bodies)
