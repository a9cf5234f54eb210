"""Kinds of fields: strict numbers, short lists, and fields that are known and not done."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ...contract.errors import Unsupported

MAX_TOKENS = 1 << 24
MAX_TOKEN_ID = (1 << 31) - 1
MAX_PROMPTS = 128

Seed = Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)]
TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
# A list stops at its first bad item: a body of two million bad ones must not make two million errors.
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]


class RequestModel(BaseModel):
    """A body from a client of OpenAI's: types are strict (1.0 is no integer, true no number), strangers are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class OwnRequestModel(BaseModel):
    """A body that only this server defines: strangers are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class Only:
    """Marks a field that this server knows and does not do: null and `values` pass, the rest is refused by name.

    `within` is the path of the object that the field stands in.
    """

    def __init__(self, *values: Any, within: str = "") -> None:
        self._values = values
        self._within = f"{within}." if within else ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": [*self._values, None]}

    def _check(self, value: Any, info: core_schema.ValidationInfo) -> None:
        # False is not 0 here, nor True 1.
        if value is None or any(type(value) is type(one) and value == one for one in self._values):
            return
        name = f"{self._within}{info.field_name}"
        raise Unsupported(f"'{name}' is not supported by this server.", param=name)
