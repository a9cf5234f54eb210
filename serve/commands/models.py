"""`tunechat models`: the models that are prepared on this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..settings import load
from .options import Json
from .output import format_bytes, print_json, print_table

if TYPE_CHECKING:
    from ..base.models import PreparedModel

app = typer.Typer(help="List the prepared models; `models remove` deletes one.", invoke_without_command=True)


@app.callback()
def models(context: typer.Context, json: Json = False) -> None:
    """List the models that are prepared on this machine."""
    if context.invoked_subcommand is not None:
        return
    home = load().settings.home
    from ..base.models import list_models

    found = list_models(home)
    if json:
        print_json([model_json(home, model) for model in found])
        return
    if not found:
        typer.echo("no models yet; `tunechat pull` fetches the default one", err=True)
        return
    print_table(
        ("model", "form", "size", "context", "made", "folder"),
        [
            (
                model.manifest.name,
                model.manifest.quant,
                format_bytes(model.nbytes),
                model.manifest.context_length,
                datetime.fromtimestamp(model.manifest.created, UTC).strftime("%Y-%m-%d"),
                model.path.name,
            )
            for model in found
        ],
    )


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="A model's name (all its forms) or the folder name of one form.")],
    json: Json = False,
) -> None:
    """Delete a prepared model. A running server keeps the weights that it has mapped."""
    home = load().settings.home
    from ..base.models import remove_model

    removed = remove_model(home, name)
    if json:
        print_json([model_json(home, model) for model in removed])
    else:
        for model in removed:
            print(f"removed {model.path.name} ({format_bytes(model.nbytes)})")


def model_json(home: Path, model: PreparedModel) -> dict[str, Any]:
    """What `--json` says of a prepared model: its manifest without the hashes, its folder, its size on disk."""
    import msgspec

    about = {key: value for key, value in msgspec.to_builtins(model.manifest).items() if key != "files"}
    return {**about, "path": str(home / model.path), "bytes": model.nbytes}
