"""Which tensor a head shares with the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import is_compact


def tied_to(config: Mapping[str, Any], module: str) -> str | None:
    """The name of the embedding's tensor when the linear `module` has no weight of its own, else None.

    Raises ModelError when the config names no class that transformers has.
    """
    if is_compact(config):
        return "model.embed_tokens.weight" if module == "lm_head" and config.get("tie_word_embeddings") else None
    from .skeleton import skeleton_of

    if f"{module}.weight" not in skeleton_of(config).tied:
        return None
    return _embedding(config)


def _embedding(config: Mapping[str, Any]) -> str | None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {key: value for key, value in config.items() if key not in {"model_type", "auto_map"}}
    with torch.device("meta"):
        settings = AutoConfig.for_model(str(config["model_type"]), **values)
        model = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    table = model.get_input_embeddings()
    return next((f"{name}.weight" for name, module in model.named_modules() if module is table), None)
