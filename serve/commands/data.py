"""`tunechat data`: look at files with examples before a model is trained on them, and convert them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..settings import load
from .options import Json
from .output import print_json, progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...trainer.data.check.lengths import Measure
    from ...trainer.data.sample import Sample
    from ...trainer.data.samples import Reading
    from ..settings import Settings

app = typer.Typer(help="Check and convert data for training, whatever its format.", no_args_is_help=True)

Files = Annotated[list[str], typer.Argument(help="Files, folders or patterns; PATH=2 counts twice.", metavar="FILE...")]
Format = Annotated[
    str | None, typer.Option("--format", help="Name of the format, where looking is not enough.", show_default=False)
]
Question = Annotated[
    str | None, typer.Option("--question", help="Column or field of the question.", show_default=False)
]
Answer = Annotated[str | None, typer.Option("--answer", help="Column or field of the answer.", show_default=False)]
Sheet = Annotated[str | None, typer.Option("--sheet", help="Sheet of a spreadsheet.", show_default=False)]


@app.command("check")
def check_data(
    files: Files,
    validation: Annotated[
        list[str] | None, typer.Option("--validation", help="Files that training must not see.", show_default=False)
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", help="Tokens that a sample may have.", min=1, max=1 << 24, show_default=False),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model whose tokens count.", show_default=False)] = None,
    tokens: Annotated[bool, typer.Option("--tokens/--no-tokens", help="Whether to count tokens.")] = True,
    format: Format = None,
    question: Question = None,
    answer: Answer = None,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Say what files hold, and what is wrong with them at which line; exit with 1 where it must be mended."""
    settings = load({"model": model}).settings
    from ...trainer.data.check.checking import check
    from ...trainer.data.files.sources import read_sources
    from ..contract.errors import ConfigError
    from .data_view import print_report

    if max_length is not None and not tokens:
        raise ConfigError("--max-length counts tokens, which --no-tokens forbids; leave one out")
    reading = reading_of(format, question, answer, sheet)
    training, held_out = read_sources(files), read_sources(validation or ())
    measure = _measure(settings, needed=model is not None or max_length is not None) if tokens else None
    with progress() as report:
        found = check(
            training,
            held_out,
            reading=reading,
            measure=measure,
            max_length=max_length,
            report=lambda done: report(f"{done} samples"),
        )
    if json:
        print_json(found.as_json())
    else:
        print_report(found)
    if not found.ok:
        raise typer.Exit(1)


@app.command("convert")
def convert(
    file: Annotated[str, typer.Argument(help="File, folder or pattern to read.")],
    out: Annotated[Path, typer.Argument(help="File to write, a line of JSON a sample.")],
    force: Annotated[bool, typer.Option("--force", help="Write over OUT.")] = False,
    skip: Annotated[bool, typer.Option("--skip-invalid", help="Leave out what is wrong, and say so.")] = False,
    format: Format = None,
    question: Question = None,
    answer: Answer = None,
    sheet: Sheet = None,
    json: Json = False,
) -> None:
    """Write the samples of a file as OpenAI's fine-tuning takes them."""
    load()
    from ...trainer.data.convert import write_openai
    from ...trainer.data.files.sources import read_sources
    from ...trainer.data.samples import samples_or_errors
    from ..contract.errors import InvalidData
    from .data_view import one_line

    reading = reading_of(format, question, answer, sheet)
    sources = read_sources([file])
    skipped: list[InvalidData] = []

    def samples() -> Iterator[Sample]:
        for source in sources:
            for item in samples_or_errors(source.path, reading):
                if not isinstance(item, InvalidData):
                    yield item
                elif skip:
                    skipped.append(item)
                    typer.echo(f"left out: {one_line(item.message)}", err=True)
                else:
                    raise item

    try:
        count = write_openai(samples(), out, force=force)
    except InvalidData as error:
        typer.echo(f"error: {one_line(error.message)}", err=True)
        raise typer.Exit(1) from error
    if json:
        print_json({"path": str(out), "samples": count, "left_out": len(skipped)})
    else:
        left = f", {len(skipped)} left out" if skipped else ""
        typer.echo(f"{count} samples{left}: {out}")


@app.command("formats")
def formats(json: Json = False) -> None:
    """List the formats that are known."""
    from ...trainer.data.formats.choice import FORMATS
    from .output import print_table

    if json:
        print_json([{"name": form.name, "about": form.about} for form in FORMATS])
    else:
        print_table(("format", "records"), [(form.name, form.about) for form in FORMATS])


def reading_of(format: str | None, question: str | None, answer: str | None, sheet: str | None) -> Reading:
    """How to read files, from the options that say so. Raises ConfigError for a format that is not known."""
    from ...trainer.data.formats.choice import format_named
    from ...trainer.data.samples import Reading

    if format is not None:
        format_named(format)
    return Reading(format, question, answer, sheet)


def _measure(settings: Settings, *, needed: bool) -> Measure | None:
    """Counts tokens as the model in the settings does. None where it is not prepared and nothing depends on it."""
    from ...trainer.data.check.lengths import measure_of
    from ..contract.errors import ModelError
    from ..text.dialects import choose_dialect
    from ..text.model_text import ModelText
    from .prepared import prepared_base

    try:
        entry = prepared_base(settings)
    except ModelError as error:
        if needed:
            raise
        typer.echo(f"tokens are not counted: {error.message}", err=True)
        return None
    text = ModelText.load(entry)
    return measure_of(text, choose_dialect(text))
