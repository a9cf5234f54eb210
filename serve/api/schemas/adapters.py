"""Adapters in requests: which to use and how strongly, and vLLM's bodies for loading and unloading."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .fields import OwnRequestModel, RequestModel

MAX_ADAPTERS = 8
MAX_WEIGHT = 8.0

Name = Annotated[str, Field(min_length=1, max_length=512)]


class AdapterWeight(OwnRequestModel):
    """One adapter of a weighted sum. Negative weights subtract."""

    name: Name
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)] = 1.0


class LoadLoraRequest(RequestModel):
    """vLLM's body of /v1/load_lora_adapter."""

    lora_name: Name
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]
    load_inplace: bool | None = Field(default=None, description="Make it a new version of a name that is loaded.")


class UnloadLoraRequest(RequestModel):
    """vLLM's body of /v1/unload_lora_adapter; the number is ignored."""

    lora_name: Name
    lora_int_id: int | None = None
