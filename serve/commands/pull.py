"""`tunechat pull`: fetch and prepare a model, so that a later start only maps it."""

from __future__ import annotations

from ..settings import load
from .options import Json, Model, Quant
from .output import format_bytes, print_json, progress


def pull(model: Model = None, quant: Quant = None, json: Json = False) -> None:
    """Fetch a model and prepare it for serving. A broken download goes on where it stopped."""
    settings = load({"model": model, "quant": quant}).settings
    from ..base.prepare import prepare

    with progress() as report:
        entry = prepare(
            settings.model,
            quant=None if settings.quant == "auto" else settings.quant,
            home=settings.home,
            report=report,
        )
    from .entries import read_entry

    found = read_entry(entry)
    if json:
        print_json(found.as_json())
    else:
        print(f"{found.manifest.name} ({found.manifest.quant}, {format_bytes(found.bytes)}) is ready in {entry}")
