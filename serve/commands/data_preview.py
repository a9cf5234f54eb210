"""`tunechat data preview`: samples as the model will read them, with what it learns in colour."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..settings import load
from .data import Answer, Files, Format, Question, Sheet, reading_of
from .data_view import one_line
from .options import Json
from .output import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...trainer.data.mask import AnswerMask
    from ...trainer.data.preview import Piece
    from ...trainer.data.row import Row
    from ...trainer.data.sample import Sample
    from ...trainer.data.samples import Reading
    from ..contract.errors import InvalidData

# Plain text is shown up to here.
_LONGEST = 2048


def preview(
    files: Files,
    count: Annotated[int, typer.Option("-n", "--samples", help="How many samples.", min=1, max=10_000)] = 3,
    skip: Annotated[int, typer.Option("--skip", help="How many are passed over before.", min=0)] = 0,
    last_turn_only: Annotated[
        bool, typer.Option("--last-turn-only", help="Learn only the last answer of a conversation.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Model whose chat template is used.", show_default=False)
    ] = None,
    format: Format = None,
    question: Question = None,
    answer: Answer = None,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Show samples as the model will read them: what is learned stands in green, or between « and »."""
    settings = load({"model": model}).settings
    from ...trainer.data.mask import AnswerMask
    from ...trainer.data.preview import pieces
    from ..contract.errors import InvalidData, InvalidSample
    from ..text.dialects import choose_dialect
    from ..text.model_text import ModelText
    from .prepared import prepared_base

    text = ModelText.load(prepared_base(settings))
    mask = AnswerMask(text, choose_dialect(text), last_turn_only=last_turn_only)
    shown: list[dict[str, Any]] = []
    failed = False
    for item in islice(_samples(files, reading_of(format, question, answer, sheet)), skip, skip + count):
        try:
            if isinstance(item, InvalidData):
                raise item
            rows = [sample for row in _rows(item, mask) for sample in pieces(row, text)]
        except (InvalidData, InvalidSample) as error:
            failed = True
            shown.append({"error": error.message})
            if not json:
                typer.echo(f"error: {one_line(error.message)}\n", err=True)
            continue
        shown.append({"place": str(item.place), "rows": [[_as_json(piece) for piece in row] for row in rows]})
        if not json:
            _print(str(item.place), rows)
    if json:
        print_json(shown)
    if failed:
        raise typer.Exit(1)


def _samples(files: list[str], reading: Reading) -> Iterator[Sample | InvalidData]:
    from ...trainer.data.files.sources import read_sources
    from ...trainer.data.samples import samples_or_errors

    for source in read_sources(files):
        yield from samples_or_errors(source.path, reading)


def _rows(sample: Sample, mask: AnswerMask) -> list[Row]:
    from ...trainer.data.plain_rows import plain_rows
    from ...trainer.data.sample import Conversation

    if isinstance(sample, Conversation):
        return mask.rows(sample)
    return list(islice(plain_rows([sample], mask.text, _LONGEST), 1))


def _as_json(piece: Piece) -> dict[str, Any]:
    return {"text": piece.text, "weight": piece.weight, "tokens": piece.tokens}


def _print(place: str, rows: Sequence[Sequence[Piece]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    if not rows:
        console.print(Text(f"{one_line(place)}: nothing of it is learned\n"))
    for number, row in enumerate(rows, start=1):
        total, learned = sum(piece.tokens for piece in row), sum(piece.tokens for piece in row if piece.weight)
        which = f", row {number} of {len(rows)}" if len(rows) > 1 else ""
        console.print(Text(f"{one_line(place)}{which}: {total} tokens, {learned} learned", style="bold"))
        line = Text()
        for piece in row:
            said = printable(piece.text)
            if piece.weight and not console.is_terminal:
                said = f"«{said}»"
            line.append(said, style="green" if piece.weight else "dim")
        console.print(line, end="\n\n")


def printable(text: str) -> str:
    """The text without characters that steer a terminal: they are written as escapes."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)
