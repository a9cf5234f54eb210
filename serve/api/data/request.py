"""Bodies that say which data is meant, and how it is read."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ...contract.errors import InvalidRequest
from ..schemas.fields import OwnRequestModel

FileId = Annotated[str, Field(min_length=1, max_length=128)]
Word = Annotated[str, Field(min_length=1, max_length=256)]

# Fields that are keys of a recipe, under the same names.
_KEYS = ("format", "question", "answer", "sheet", "max_length", "thinking", "last_turn_only")


class DataRequest(OwnRequestModel):
    """An uploaded file (`file`) or a text (`text`), one of them."""

    file: FileId | None = Field(default=None, description="Id of an uploaded file.")
    text: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="The data itself.")
    filename: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        default=None, description="What the text would be called; its ending says how it is read."
    )
    format: Word | None = Field(default=None, description="Name of the format, where looking is not enough.")
    question: Word | None = Field(default=None, description="Column or field of the question.")
    answer: Word | None = Field(default=None, description="Column or field of the answer.")
    sheet: Word | None = Field(default=None, description="Sheet of a workbook.")
    max_length: Annotated[int, Field(ge=8, le=1 << 20)] | None = Field(
        default=None, description="Tokens that a sample may have."
    )
    thinking: bool | None = Field(default=None, description="The `enable_thinking` that requests will send.")
    last_turn_only: bool | None = Field(default=None, description="Learn only the last answer of a conversation.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file is None) == (self.text is None):
            raise InvalidRequest("Send either 'file' or 'text'.", param="file")
        if self.filename is not None and self.text is None:
            raise InvalidRequest("'filename' belongs to a 'text'; an uploaded file has its own.", param="filename")
        return self

    @property
    def recipe(self) -> dict[str, Any]:
        """The fields as keys of a recipe."""
        return {key: value for key in _KEYS if (value := getattr(self, key)) is not None}


class CheckRequest(DataRequest):
    validation_file: FileId | None = Field(default=None, description="Id of a file that training must not see.")


class PreviewRequest(DataRequest):
    limit: Annotated[int, Field(ge=1, le=100)] = Field(default=3, description="How many samples.")
    skip: Annotated[int, Field(ge=0, le=1 << 31)] = Field(default=0, description="How many are passed over before.")
