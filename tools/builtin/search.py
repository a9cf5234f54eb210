"""`search`: passages of the user's own documents."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ToolFailed
from .index import DocumentIndex

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


class SearchArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1, max_length=500, description="Words that the passages should hold.")]
    count: Annotated[int, Field(ge=1, le=20, description="How many passages.")] = 5


def search(index: DocumentIndex, query: str, count: int = 5) -> str:
    """The passages, each under its `path:line`. Raises ToolFailed."""
    try:
        found = index.search(query, count)
    except sqlite3.Error as error:
        raise ToolFailed("the documents cannot be searched now") from error
    return "\n\n".join(f"{passage.path}:{passage.line}\n{passage.text}" for passage in found) or "[nothing found]"


def make(index: DocumentIndex) -> BaseTool:
    from langchain_core.tools import StructuredTool

    def run(query: str, count: int = 5) -> str:
        return search(index, query, count)

    return StructuredTool.from_function(
        run,
        name="search",
        description="Find passages in the documents of the user.",
        args_schema=SearchArgs,
    )
