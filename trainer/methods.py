"""From a method's name to the model that learns by it."""

from __future__ import annotations

from ..serve.base.entry import BaseEntry
from ..serve.contract.errors import ConfigError
from .adapted import AdaptedModel
from .computing import Computing
from .full import FullModel
from .lora import plan_of
from .model import TrainedModel
from .recipe import Recipe


def make_model(recipe: Recipe, entry: BaseEntry, computing: Computing) -> TrainedModel:
    """What a complete recipe trains, on the entry.

    Raises ModelError for a model that would not be trained right, ConfigError for packing where samples would mix.
    """
    base = entry.manifest
    if recipe.method == "full":
        name = recipe.name if "name" in recipe.chosen else f"{base.name}-tuned"
        model: TrainedModel = FullModel(entry, name, computing)
    else:
        model = AdaptedModel(entry, plan_of(recipe), computing)
    if recipe.packing == "pack" and not model.isolates:
        raise ConfigError(
            f"packing: samples of {base.architecture} see one another when they share a row, so they cannot be packed; "
            "take packing=group or leave it out.",
            param="packing",
        )
    return model
