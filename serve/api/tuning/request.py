"""The body that makes a fine-tuning job: OpenAI's, and `recipe` for all that this server's trainer can be told."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ...adapters.names import check_name
from ...contract.errors import InvalidRequest
from ..schemas.fields import Only, RequestModel

MAX_SEED = 2**32 - 1
_AUTO = "auto"
_MOST_KEYS = 128


class Auto:
    """Marks a number that may be "auto" too, and is None then. Bounds are inclusive."""

    def __init__(self, low: float, high: float, *, whole: bool = False) -> None:
        self._low = low
        self._high = high
        self._kind = "a whole number" if whole else "a number"
        self._types: tuple[type, ...] = (int,) if whole else (int, float)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        number = {"type": "integer" if float not in self._types else "number"}
        return {"anyOf": [{"enum": [_AUTO, None]}, number | {"minimum": self._low, "maximum": self._high}]}

    def _check(self, value: Any, info: core_schema.ValidationInfo) -> float | None:
        if value is None or value == _AUTO:
            return None
        # True is no number, and what is not a number is not between two.
        if type(value) in self._types and self._low <= value <= self._high:
            return value  # type: ignore[no-any-return]
        raise InvalidRequest(
            f"'{info.field_name}' must be \"auto\" or {self._kind} from {self._low:g} to {self._high:g}.",
            param=f"hyperparameters.{info.field_name}",
            code="invalid_value",
        )


class Named:
    """Marks a text that must make the name of an adapter."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}

    def _check(self, value: str) -> str:
        try:
            return check_name(value)
        except InvalidRequest as error:
            raise InvalidRequest(
                "'suffix' is the adapter's name too: 1 to 64 ASCII letters, digits, dots, dashes and underscores, the "
                "first a letter or digit.",
                param="suffix",
                code="invalid_value",
            ) from error


class Hyperparameters(RequestModel):
    """What OpenAI lets one choose; None is left to the data."""

    n_epochs: Annotated[float | None, Auto(0.001, 10_000)] = None
    batch_size: Annotated[int | None, Auto(1, 65_536, whole=True)] = None
    learning_rate_multiplier: Annotated[float | None, Auto(0.0001, 1000)] = None


class SupervisedMethod(RequestModel):
    hyperparameters: Hyperparameters | None = None


class Method(RequestModel):
    """How to learn. Supervised is all there is."""

    type: Annotated[Any, Only("supervised", within="method")]
    supervised: SupervisedMethod | None = None
    dpo: Annotated[Any, Only(within="method")] = None
    reinforcement: Annotated[Any, Only(within="method")] = None


Id = Annotated[str, Field(min_length=1, max_length=128)]
Key = Annotated[str, Field(min_length=1, max_length=64)]
Value = Annotated[str, Field(max_length=512)]


class CreateJobRequest(RequestModel):
    """A job to be made."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    training_file: Id
    validation_file: Id | None = None
    suffix: Annotated[str, Named()] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(default=None, description="OpenAI's older place for them.")
    metadata: Annotated[dict[Key, Value], Field(max_length=16)] | None = None
    integrations: Annotated[Any, Only([])] = None
    recipe: Annotated[dict[Key, Any], Field(max_length=_MOST_KEYS)] | None = Field(
        default=None, description="Keys of a recipe, which say everything that the trainer can be told."
    )
