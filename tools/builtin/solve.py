"""`solve`: exact solutions of equations, by sympy in a confined child that cannot hang the server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ToolFailed
from ..processes import Confinement, run_confined

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

LIMITS = Confinement(seconds=28.0)
_PROGRAM = Path(__file__).with_name("algebra.py")

Equation = Annotated[str, Field(min_length=1, max_length=300)]
Variable = Annotated[str, Field(min_length=1, max_length=16)]


class SolveArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    equations: Annotated[
        list[Equation], Field(min_length=1, max_length=8, description='Such as ["x + y = 5", "2x - y = 1"].')
    ]
    variables: Annotated[
        list[Variable], Field(max_length=8, description="What to solve for. Empty: every variable there is.")
    ] = []


async def solve(equations: list[str], variables: list[str] | None = None, limits: Confinement = LIMITS) -> str:
    """One line a solution, such as `x = 2, y = 3`. Raises ToolFailed that says what cannot be read or solved."""
    asked = json.dumps({"equations": equations, "variables": variables or []}).encode()
    done = await run_confined([sys.executable, "-I", str(_PROGRAM)], stdin=asked, limits=limits, readable=[_PROGRAM])
    if done.timed_out:
        raise ToolFailed(f"no solution was found within {limits.seconds:g} seconds")
    try:
        told = json.loads(done.output)
    except ValueError as error:
        raise ToolFailed("these equations take more memory than there is for them, or broke sympy") from error
    if "answer" not in told:
        raise ToolFailed(str(told.get("error", "no answer")))
    return str(told["answer"])


def make() -> BaseTool:
    from langchain_core.tools import StructuredTool

    async def run(equations: list[str], variables: list[str] | None = None) -> str:
        return await solve(equations, variables)

    return StructuredTool.from_function(
        coroutine=run,
        name="solve",
        description="Solve one equation or a system of equations exactly, such as x^2 = 2.",
        args_schema=SolveArgs,
    )
