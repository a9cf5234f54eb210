"""The form of the weights that a recipe trains on. Loads no torch, so that recipes can be checked quickly."""

from __future__ import annotations

from .recipe import Recipe


def codec_of(recipe: Recipe, served: str) -> str:
    """The form of the weights that is trained on, where `served` is the one that is served."""
    if recipe.codec != "auto":
        return recipe.codec
    return "none" if recipe.method in ("lora", "full") else served
