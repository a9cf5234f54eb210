"""`calculate`: arithmetic that the model need not do in its head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from .arithmetic import MAX_LENGTH, evaluate, written

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


class CalculateArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    expression: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_LENGTH,
            description="Arithmetic, such as (3 + 4) * 2 ** 10 / 7 or sqrt(2) * pi.",
        ),
    ]


def calculate(expression: str) -> str:
    """The value of `expression` in digits. Raises ToolFailed."""
    return written(evaluate(expression))


def make() -> BaseTool:
    from langchain_core.tools import StructuredTool

    return StructuredTool.from_function(
        calculate,
        name="calculate",
        description="Compute the value of an arithmetic expression: + - * / // % **, parentheses, and functions "
        "such as sqrt, sin, log, round, factorial.",
        args_schema=CalculateArgs,
    )
