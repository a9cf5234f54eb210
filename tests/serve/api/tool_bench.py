"""A served application whose server runs tools that are easy to watch; the fixture `bench` makes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from tunechat.tests.serve.api.harness import chat, events_of
from tunechat.tests.tools.conftest import Workbench
from tunechat.tools.budgets import Budget
from tunechat.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from tunechat.tests.serve.api.conftest import Serve, Served

URL = "/v1/chat/completions"
# Tokens are bytes here, and tools and their results take many.
ROOM = {"context": 1 << 14, "blocks": 4096, "chunk": 16}
ECHO = {"type": "tunechat", "name": "echo"}
DELETE = {"type": "tunechat", "name": "delete"}
SLOW = {"type": "tunechat", "name": "slow"}
MINE = {"type": "function", "function": {"name": "mine", "parameters": {"properties": {"a": {"type": "integer"}}}}}


def made(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


CALL = made("echo", text="x", times=3)
ANSWERS = [f"Let me see.\n{CALL}", "It is xxx."]


class Bench:
    """A served application with a workbench of tools."""

    def __init__(self, served: Served, work: Workbench, closed: list[bool]) -> None:
        self.served, self.work, self.closed = served, work, closed
        self.engine = served.engine

    def prompt(self, turn: int) -> str:
        """What the model read in that turn."""
        return self.engine.text.decode(self.engine.submitted[turn][0], skip_special=False)

    async def whole(self, *tools: Any, **fields: Any) -> dict[str, Any]:
        response = await self.served.client.post(URL, json=chat(tools=list(tools), **fields))
        assert response.status_code == 200, response.text
        reply: dict[str, Any] = response.json()
        return reply

    async def message(self, *tools: Any, **fields: Any) -> dict[str, Any]:
        message: dict[str, Any] = (await self.whole(*tools, **fields))["choices"][0]["message"]
        return message

    async def chunks(self, *tools: Any, **fields: Any) -> list[dict[str, Any]]:
        response = await self.served.client.post(URL, json=chat(tools=list(tools), stream=True, **fields))
        assert response.status_code == 200, response.text
        *chunks, end = events_of(response.content)
        assert end == "[DONE]"
        return chunks


Make = Callable[..., Awaitable[Bench]]


def bench_maker(serve: Serve, folder: Path) -> Make:
    """`await make(*answers, rules=(...), budget={...}, engine={...}, **settings)`; the log of calls is in `folder`."""

    async def make(
        *answers: str, rules: tuple[str, ...] = (), budget: Any = None, engine: Any = None, **settings: Any
    ) -> Bench:
        work = Workbench(folder, list(rules), Budget(**(budget or {})))
        closed: list[bool] = []

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[Toolbox]:
            try:
                yield work.box
            finally:
                closed.append(True)

        told = {"server_tools": ("echo", "delete", "slow", "broken")} | settings
        served = await serve(ROOM | {"answers": list(answers)} | (engine or {}), open_tools=opened, **told)
        return Bench(served, work, closed)

    return make


def assembled(chunks: list[dict[str, Any]]) -> Any:
    """What OpenAI's stream helper makes of the chunks."""
    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.get_final_completion().choices[0]


def steps_of(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return [step for delta in deltas for step in delta.get("tunechat", {}).get("steps", ())]
