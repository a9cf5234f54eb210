"""`tunechat run`: one question, one answer, as a stream of text."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..setting_kinds import parse_quantity
from ..settings import Settings, SettingsError, load
from .options import ApiKey, Device, Json, Quant, Threads, Url
from .output import print_json, progress

if TYPE_CHECKING:
    from .asking import Question, Reply, Show

MAX_INPUT_BYTES = 16 << 20
# Everything that steers a terminal: model text must not move the cursor, set titles or write to the clipboard.
_CONTROL = dict.fromkeys([*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)])


def run(
    prompt: Annotated[str | None, typer.Argument(help="The question. Piped input is put after it.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model to ask.", metavar="MODEL")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message.", metavar="TEXT")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")] = None,
    max_tokens: Annotated[str | None, typer.Option(help="Longest answer.", metavar="TOKENS")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Makes the draws repeatable.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    quant: Quant = None,
    device: Device = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Ask a model one question and stream its answer.

    A running server answers when there is one (with --url, that one must); otherwise an engine is started for this
    question alone.
    """
    flags = {"model": model, "url": url, "api_keys": api_key, "quant": quant, "device": device, "threads": threads}
    settings = load(flags).settings
    text = _joined(prompt, _piped())
    from .asking import Question

    question = Question(
        prompt=text, system=system, model=model, temperature=temperature, max_tokens=_count(max_tokens), seed=seed
    )
    reply = _ask(settings, question, (lambda piece: None) if json else _shower())
    if json:
        print_json(reply.as_json())
    elif not reply.text.endswith("\n"):
        print()


def _ask(settings: Settings, question: Question, show: Show) -> Reply:
    from .asking import ask_engine, ask_server, await_ready
    from .server import Server

    with Server.of(settings) as server:
        if settings.url or server.answers():
            if not settings.url:
                with progress() as report:
                    await_ready(server, settings.start_timeout, report)
            return ask_server(server, question, show)
    from .starting import engine_client

    with progress() as report:
        return asyncio.run(ask_engine(engine_client(settings), question, show, report))


def _shower() -> Show:
    steers = sys.stdout.isatty()

    def show(piece: str) -> None:
        sys.stdout.write(piece.translate(_CONTROL) if steers else piece)
        sys.stdout.flush()

    return show


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        count = parse_quantity(text)
    except ValueError as error:
        raise SettingsError(f"--max-tokens {error}") from error
    if not 1 <= count <= 1 << 24:
        raise SettingsError("--max-tokens should be at least 1 and at most 16M")
    return count


def _piped() -> str:
    """What a pipe or a file gives on stdin; anything else is left alone, because reading it could wait for ever."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise SettingsError(f"the piped input is larger than {MAX_INPUT_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"the piped input is not UTF-8: {error}") from error


def _joined(prompt: str | None, piped: str) -> str:
    text = "\n\n".join(part for part in (prompt, piped.strip("\n")) if part)
    if not text.strip():
        raise SettingsError("nothing to ask; give a prompt, or pipe one in")
    return text
