"""`now`: the date and the time, which a model cannot know."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ToolFailed

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


class NowArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    timezone: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^[A-Za-z0-9_+/-]*$",
            description="A name of the IANA database, such as Europe/Berlin or UTC. Empty is where the user is.",
        ),
    ] = ""


def now(timezone: str = "") -> str:
    """The time there, such as `Tuesday, 2026-03-03 14:05:09 UTC+01:00 (Europe/Berlin)`. Raises ToolFailed."""
    try:
        moment = datetime.now(ZoneInfo(timezone)) if timezone else datetime.now().astimezone()
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolFailed(f"there is no time zone {timezone!r}; use a name such as Europe/Berlin") from error
    return f"{moment:%A, %Y-%m-%d %H:%M:%S} {moment.tzname() if not timezone else ''}".rstrip() + (
        f" UTC{moment:%z} ({timezone})" if timezone else f" (UTC{moment:%z})"
    )


def make() -> BaseTool:
    from langchain_core.tools import StructuredTool

    return StructuredTool.from_function(
        now,
        name="now",
        description="Tell the current date, weekday and time, where the user is or in a given time zone.",
        args_schema=NowArgs,
    )
