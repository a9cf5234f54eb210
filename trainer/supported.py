"""What a recipe may ask of this trainer; everything else is refused by name before anything is loaded."""

from __future__ import annotations

from ..serve.contract.base import BaseManifest
from ..serve.contract.errors import ConfigError
from .recipe import Recipe


def check_supported(recipe: Recipe, base: BaseManifest) -> None:
    """Raises ConfigError, whose `param` is the key, for what this trainer does not do, or not on this base."""
    if not recipe.data:
        raise ConfigError("There is no data to learn from: name files under `data`.", param="data")
    refused = {
        "method": {"full": "whole models are not trained yet; take method=qlora"},
        "distributed": dict.fromkeys(
            ("ddp", "zero2", "zero3"), "training runs in one process yet; leave distributed out"
        ),
        "optimizer": {
            name: f"{name} is not there yet; take optimizer=adamw"
            for name in ("adamw_8bit", "paged_adamw", "paged_adamw_8bit")
        },
        "precision": {"bfloat16": "adapters are trained in float32 yet; take precision=float32"},
        "attention": {"flash": "FlashAttention is not used yet; take attention=sdpa"},
    }
    for key, values in refused.items():
        if reason := values.get(str(getattr(recipe, key))):
            raise ConfigError(f"{key}: {reason}.", param=key)
    if recipe.method == "lora" and base.quant != "none":
        raise ConfigError(
            f"method: lora trains on unquantised weights, but {base.name} is served as {base.quant}; take "
            "method=qlora, or serve the model with --quant none.",
            param="method",
        )
    if recipe.method == "qlora" and base.quant == "none":
        raise ConfigError(f"method: {base.name} is served unquantised; take method=lora.", param="method")
    if recipe.codec not in ("auto", base.quant):
        raise ConfigError(
            f"codec: {base.name} is served as {base.quant}, and adapters are trained on what is served; "
            f"leave codec out or serve the model with --quant {recipe.codec}.",
            param="codec",
        )
