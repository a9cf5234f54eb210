"""Whether a recipe can be trained here, before there is any data."""

from __future__ import annotations

from ...serve.contract.base import BaseManifest
from ..recipe import Recipe
from ..supported import check_supported


def check_trainable(recipe: Recipe, manifest: BaseManifest) -> None:
    """Raises ConfigError, whose `param` is the key, for what the trainer does not do, or not on this base."""
    # The data may come as a file of its own, later.
    check_supported(recipe if recipe.data else recipe.model_copy(update={"data": ("data",)}), manifest)
