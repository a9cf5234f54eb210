"""`python`: runs a program that the model wrote, in a confined child. Off by default.

The child has no network and sees no files but Python's own, where the kernel can do that (Linux with user namespaces
and Landlock). It bounds what a careless program does. It is no wall against an attacker: for that, run tunechat itself
in a container or a virtual machine.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..processes import Confinement, run_confined

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

LIMITS = Confinement(seconds=10.0)


class PythonArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: Annotated[str, Field(min_length=1, max_length=32_768, description="The program. Print what you need.")]


async def run_python(code: str, limits: Confinement = LIMITS) -> str:
    """What the program printed, and how it ended if that was not well."""
    done = await run_confined([sys.executable, "-I", "-"], stdin=code.encode("utf-8", "replace"), limits=limits)
    parts = [done.output.rstrip()] if done.output.strip() else []
    if done.truncated:
        parts.append(f"[stopped after {limits.output} bytes of output]")
    elif done.timed_out:
        parts.append(f"[stopped after {limits.seconds:g} seconds]")
    elif done.code:
        parts.append(f"[ended with status {done.code}]")
    return "\n".join(parts) or "[no output]"


def make() -> BaseTool:
    from langchain_core.tools import StructuredTool

    async def python(code: str) -> str:
        return await run_python(code)

    return StructuredTool.from_function(
        coroutine=python,
        name="python",
        description="Run a short Python program and see what it prints. Each run starts from nothing, without network "
        "or files, for at most 10 seconds.",
        args_schema=PythonArgs,
    )
