"""`tunechat pull`: fetch and prepare a model, so that a later start only maps it."""

from __future__ import annotations

from ..settings import load
from .options import Json, Model, Quant
from .output import format_bytes, print_json, progress


def pull(model: Model = None, quant: Quant = None, json: Json = False) -> None:
    """Fetch a model and prepare it for serving. A download that broke off goes on where it stopped."""
    settings = load({"model": model, "quant": quant}).settings
    from ..base.models import list_models
    from ..base.prepare import prepare
    from .models import model_json

    with progress() as report:
        entry = prepare(
            settings.model,
            quant=None if settings.quant == "auto" else settings.quant,
            home=settings.home,
            report=report,
        )
    made = next(model for model in list_models(settings.home) if settings.home / model.path == entry)
    if json:
        print_json(model_json(settings.home, made))
    else:
        print(f"{made.manifest.name} ({made.manifest.quant}, {format_bytes(made.nbytes)}) is ready in {entry}")
