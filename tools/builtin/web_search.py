"""`web_search`: results of the web, through serper.dev and with the user's own key."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import httpcore
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ToolFailed

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

SERPER = "https://google.serper.dev/search"
_SECONDS = 15.0
_LARGEST = 1 << 20


class WebSearchArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1, max_length=400, description="What to look for.")]
    count: Annotated[int, Field(ge=1, le=10, description="How many results.")] = 5


async def web_search(key: str, query: str, count: int = 5, url: str = SERPER) -> str:
    """Titles, addresses and excerpts. Raises ToolFailed, which never names the key."""
    headers = [("content-type", "application/json"), ("x-api-key", key), ("accept-encoding", "identity")]
    body = json.dumps({"q": query, "num": count}).encode()
    data = bytearray()
    try:
        async with (
            asyncio.timeout(_SECONDS),
            httpcore.AsyncConnectionPool(max_connections=1) as pool,
            pool.stream("POST", url, headers=headers, content=body) as response,
        ):
            if response.status != 200:
                raise ToolFailed(f"the search service answered with status {response.status}")
            async for chunk in response.aiter_stream():
                data += chunk
                if len(data) > _LARGEST:
                    raise ToolFailed("the search service answered with too much")
        return _written(json.loads(data), count)
    except TimeoutError as error:
        raise ToolFailed("the search service took too long") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        raise ToolFailed(f"the search service cannot be reached: {type(error).__name__}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise ToolFailed("the search service's answer cannot be read") from error


def _written(answer: dict[str, Any], count: int) -> str:
    parts = [
        "\n".join(str(result.get(name, ""))[:1000] for name in ("title", "link", "snippet"))
        for result in (answer.get("organic") or [])[:count]
    ]
    return "\n\n".join(parts) or "[nothing found]"


def make(key: str, url: str = SERPER) -> BaseTool:
    from langchain_core.tools import StructuredTool

    async def run(query: str, count: int = 5) -> str:
        return await web_search(key, query, count, url)

    return StructuredTool.from_function(
        coroutine=run, name="web_search", description="Search the web.", args_schema=WebSearchArgs
    )
