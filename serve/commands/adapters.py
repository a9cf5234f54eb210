"""`tunechat adapters`: the adapters of a running server, or of the home folder while none runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..settings import Settings, load
from .adapter_access import reached
from .options import ApiKey, Json, Url
from .output import format_bytes, print_json, progress

app = typer.Typer(help="List, load, swap, export and merge adapters.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="A name, or a version of it: support@3.", metavar="NAME[@N]")]
Version = Annotated[str, typer.Argument(help="A version: support@3.", metavar="NAME@N")]
Name = Annotated[str, typer.Argument(help="A name: support.", metavar="NAME")]
Target = Annotated[Path, typer.Argument(help="Where to write.", metavar="PATH")]
Model = Annotated[
    str | None, typer.Option("--model", help="The base model, when it is not the default.", metavar="MODEL")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote there.")]


@app.command("list")
def list_(url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """List all adapters, their warnings, and what was refused and why."""
    with reached(_settings(url, api_key)) as adapters:
        listing = adapters.listing()
    if json:
        print_json(listing)
        return
    from .adapter_views import print_listing

    if not listing["data"] and not listing.get("quarantined"):
        typer.echo("no adapters yet; `tunechat adapters load PATH --name NAME` takes one in", err=True)
        return
    print_listing(listing)


@app.command("show")
def show(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Show all that is known of an adapter or of one version."""
    with reached(_settings(url, api_key)) as adapters:
        told = adapters.show(id)
    if json:
        print_json(told)
        return
    from .adapter_views import print_adapter, print_version

    (print_adapter if told["object"] == "adapter" else print_version)(told)


@app.command("load")
def load_(
    path: Annotated[Path, typer.Argument(help="A PEFT folder, or a zip of one.", metavar="PATH")],
    name: Annotated[str | None, typer.Option("--name", help="Its name. Default: that of the folder.")] = None,
    activate: Annotated[bool, typer.Option(help="Let the bare name mean it from now on.")] = True,
    model: Model = None,
    url: Url = None,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Take an adapter in as a new version and serve it: at once where a server runs, else from its next start."""
    settings = _settings(url, api_key, model)
    with reached(settings, is_ready=True) as adapters:
        version = adapters.load(path.absolute().stem if name is None else name, path, activate=activate)
    if json:
        print_json(version)
        return
    print(_line(version))
    _warn(version["warnings"])


@app.command("unload")
def unload(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Stop serving an adapter. It stays on disk; requests that run on it finish."""
    with reached(_settings(url, api_key)) as adapters:
        told = adapters.unload(id)
    draining = ", ".join(told.get("draining", ()))
    _tell(told, f"{id} is unloaded" + (f"; requests still run on {draining}" if draining else ""), json)


@app.command("rollback")
def rollback(name: Name, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Go back to the version that was current before."""
    with reached(_settings(url, api_key)) as adapters:
        version = adapters.rollback(name)
    _tell(version, _line(version), json)


@app.command("activate")
def activate(version: Version, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Let the bare name mean this version."""
    with reached(_settings(url, api_key)) as adapters:
        told = adapters.activate(version)
    _tell(told, _line(told), json)


@app.command("pin")
def pin(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Keep a version in memory and on disk."""
    with reached(_settings(url, api_key)) as adapters:
        version = adapters.pin(id, True)
    _tell(version, f"{version['id']} is pinned", json)


@app.command("unpin")
def unpin(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Let a version go again when room is needed."""
    with reached(_settings(url, api_key)) as adapters:
        version = adapters.pin(id, False)
    _tell(version, f"{version['id']} is not pinned", json)


@app.command("verify")
def verify(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Compare the files of a version with their hashes. Exits with 1 when one was changed."""
    with reached(_settings(url, api_key)) as adapters:
        version = adapters.verify(id)
    _tell(version, f"{version['id']} is as it was stored", json)


@app.command("remove")
def remove(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Delete a version, or a name with all its versions, from disk."""
    with reached(_settings(url, api_key)) as adapters:
        told = adapters.remove(id)
    _tell(told, f"removed {', '.join(told['removed'])}", json)


@app.command("export")
def export(
    id: Id, path: Target, force: Force = False, url: Url = None, api_key: ApiKey = None, json: Json = False
) -> None:
    """Write a version as a PEFT folder, or as a zip where PATH ends in .zip."""
    from .adapter_export import write_peft

    with reached(_settings(url, api_key)) as adapters, adapters.files(id) as (version, folder):
        nbytes = write_peft(folder, path, force=force)
    told = {"id": version.ref.id, "digest": version.digest, "path": str(path.absolute()), "bytes": nbytes}
    _tell(told, f"{version.ref.id} is in {path} ({format_bytes(nbytes)})", json)


@app.command("merge")
def merge(
    id: Id,
    path: Target,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(help="Type of the numbers. auto is the source's, float32 for dequantised weights."),
    ] = "auto",
    base: Annotated[
        Path | None, typer.Option("--base", help="The unquantised model, when it lies elsewhere.", metavar="PATH")
    ] = None,
    model: Model = None,
    force: Force = False,
    url: Url = None,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """Write the base with an adapter in it as a model of its own, which transformers loads and tunechat serves.

    It is made from the unquantised weights where they are on this machine, else from the served ones.
    """
    settings = _settings(url, api_key, model)
    from .merging import merge_adapter

    with reached(settings) as adapters, adapters.files(id) as (version, folder), progress() as report:
        merged = merge_adapter(
            version,
            folder,
            path,
            settings,
            report,
            dtype=None if dtype == "auto" else dtype,
            base=base,
            is_chosen=model is not None,
            force=force,
        )
    typer.echo(f"made from the {merged.weights} weights of {merged.origin}", err=True)
    _warn(merged.notes)
    _tell(merged.as_json(), f"{merged.id} is merged in {path} ({merged.dtype}, {format_bytes(merged.bytes)})", json)


def _settings(url: str | None, api_key: list[str] | None, model: str | None = None) -> Settings:
    return load({"url": url, "api_keys": api_key or None, "admin_keys": api_key or None, "model": model}).settings


def _line(version: dict[str, Any]) -> str:
    from .adapter_views import placed

    return f"{version['id']} ({placed(version)})"


def _tell(value: dict[str, Any], line: str, json: bool) -> None:
    if json:
        print_json(value)
    else:
        print(line)


def _warn(texts: list[str] | tuple[str, ...]) -> None:
    for text in texts:
        typer.echo(f"warning: {text}", err=True)
