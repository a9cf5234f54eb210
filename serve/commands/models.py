"""`tunechat models`: the models that are prepared on this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ..settings import load
from .entries import list_entries, remove_entries
from .options import Json
from .output import format_bytes, print_json, print_table

app = typer.Typer(help="List the prepared models; `models remove` deletes one.", invoke_without_command=True)


@app.callback()
def models(context: typer.Context, json: Json = False) -> None:
    """List the models that are prepared on this machine."""
    if context.invoked_subcommand is not None:
        return
    entries = list(list_entries(load().settings.home))
    if json:
        print_json([entry.as_json() for entry in entries])
        return
    if not entries:
        typer.echo("no models yet; `tunechat pull` fetches the default one", err=True)
        return
    print_table(
        ("model", "form", "size", "context", "made", "folder"),
        [
            (
                entry.manifest.name,
                entry.manifest.quant,
                format_bytes(entry.bytes),
                entry.manifest.context_length,
                datetime.fromtimestamp(entry.manifest.created, UTC).strftime("%Y-%m-%d"),
                entry.path.name,
            )
            for entry in entries
        ],
    )


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="A model's name (all its forms) or the folder name of one form.")],
    json: Json = False,
) -> None:
    """Delete a prepared model. A running server keeps the weights that it has mapped."""
    removed = remove_entries(load().settings.home, name)
    if json:
        print_json([entry.as_json() for entry in removed])
    else:
        for entry in removed:
            print(f"removed {entry.path.name} ({format_bytes(entry.bytes)})")
