"""What a recipe may ask of this trainer; everything else is refused by name before anything is loaded."""

from __future__ import annotations

from ..serve.contract.base import BaseManifest
from ..serve.contract.errors import ConfigError
from .codec import codec_of
from .recipe import Recipe


def check_supported(recipe: Recipe, base: BaseManifest) -> None:
    """Raises ConfigError, whose `param` is the key, for what this trainer does not do, or not on this base."""
    if not recipe.data:
        raise ConfigError("There is no data to learn from: name files under `data`.", param="data")
    if recipe.distributed in ("zero2", "zero3"):
        raise ConfigError(
            f"distributed: {recipe.distributed} is not there yet; take distributed=ddp.", param="distributed"
        )
    codec = codec_of(recipe, base.quant)
    if recipe.method == "qlora" and codec == "none":
        raise ConfigError(f"method: {base.name} is served unquantised; take method=lora.", param="method")
    if recipe.method == "full" and recipe.targets != Recipe().targets:
        raise ConfigError("targets: a full training changes every weight; leave targets out.", param="targets")
