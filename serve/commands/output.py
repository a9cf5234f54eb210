"""What the commands print: results on stdout, progress on stderr, and no progress where nobody watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Report(Protocol):
    """Tells how far something is: what it does now, and 0 to 1, or None while that is unknown."""

    def __call__(self, stage: str, fraction: float | None = None) -> None: ...


def print_json(value: Any) -> None:
    """`value` on stdout, as one indented JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; cells are taken as they are, not as markup. Without any column name there is no header."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)


@contextmanager
def progress() -> Iterator[Report]:
    """A report function that draws a bar on stderr, or does nothing when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, fraction=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        # Redirecting would put every later log line through the bar's console.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task("starting", total=None)

        def report(stage: str, fraction: float | None = None) -> None:
            bar.update(task, description=stage, total=None if fraction is None else 1.0, completed=fraction or 0.0)

        yield report


def format_bytes(count: float) -> str:
    """`count` in the binary unit that keeps it short: 91.2 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
