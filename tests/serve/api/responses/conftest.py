"""`await respond(...)`: a served application that stores responses in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.tests.serve.api.conftest import Serve, Served

Respond = Callable[..., Awaitable[Served]]
# Tokens are bytes here, and tools take many.
ROOM = {"context": 1 << 14, "blocks": 4096, "chunk": 8}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "responses.db"


@pytest.fixture
async def respond(serve: Serve, file: Path) -> Respond:
    """`respond("answer", "answer of the second request", engine={...}, **settings)`."""

    async def make(*answers: str, engine: dict[str, Any] | None = None, **settings: Any) -> Served:
        told: dict[str, Any] = {"answers": list(answers)} if len(answers) > 1 else {"answer": (*answers, "Hello")[0]}
        return await serve(ROOM | told | (engine or {}), **{"response_store": file} | settings)

    return make
