"""How the steps of an agent look in a terminal: the answer on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...tools.agent.run import Called, Finished, Returned, Spoke
    from ...tools.records import ToolCall, ToolResult


class View:
    """Writes steps as they come. Control characters of tools and models are not passed on to the terminal."""

    def __init__(self, longest: int) -> None:
        from rich.console import Console

        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._longest = longest
        self._within_line = False

    def text(self, text: str, *, reasoning: bool) -> None:
        """A piece of the answer, or of the thinking before it."""
        from rich.text import Text

        if reasoning:
            self._err.print(Text(printable(text), style="dim italic"), end="")
        else:
            self._out.print(Text(printable(text)), end="")
            self._within_line = not text.endswith("\n")
        sys.stdout.flush()

    def call(self, call: ToolCall) -> None:
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        self._line(f"→ {call.name}({self._short(arguments)})", "cyan")

    def result(self, result: ToolResult) -> None:
        mark, style = ("←", "green") if result.ok else ("✗", "yellow")
        self._line(f"{mark} {result.name}: {self._short(result.content)}", style)

    def end(self, finished: Finished) -> None:
        used = f"{finished.usage.get('total_tokens', 0)} tokens, {finished.spent.get('calls', 0)} tool calls"
        self._line(f"{finished.model} {finished.system_fingerprint} · {used}".strip(), "dim")

    def _line(self, text: str, style: str) -> None:
        from rich.text import Text

        if self._within_line:
            self._out.print()
            self._within_line = False
        self._err.print(Text(printable(text), style=style))

    def _short(self, text: str) -> str:
        return text if len(text) <= self._longest else f"{text[: self._longest]}[...]"


def json_of(step: Spoke | Called | Returned | Finished) -> dict[str, Any]:
    """A step as `--json` prints it."""
    from dataclasses import asdict

    return {"step": type(step).__name__.lower(), **asdict(step)}


def printable(text: str) -> str:
    """`text` without characters that a terminal obeys or that turn the direction of writing."""
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)
