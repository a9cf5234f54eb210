"""Runs the server of a scripted engine as a process: `python -m tests.serve.api.scripted_server ENTRY JSON`.

JSON holds `settings` for the API and `engine` for the script, whose `gate` is a step that is never passed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tunechat.serve.api.app import create_app
from tunechat.serve.api.server import run
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.contract.errors import ErrorRecord, TunechatError
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.harness import MODEL, ScriptedEngine


def main() -> None:
    entry, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    gate = options.get("gate")
    engine = ScriptedEngine(
        text=ModelText.load(entry),
        entry=entry,
        gates={} if gate is None else {gate: asyncio.Event()},
        **options.get("engine", {}),
    )
    if "fail_after" in options:
        asyncio_fail(engine, options["fail_after"])
    settings = ApiSettings(**({"model": MODEL, "port": 0} | options.get("settings", {})))
    try:
        run(create_app(engine, settings), settings, log_level="warning")
    except TunechatError as error:
        print(f"tunechat: {error.message}", file=sys.stderr)
        raise SystemExit(2) from None


def asyncio_fail(engine: ScriptedEngine, seconds: float) -> None:
    """Makes the engine be given up some time after its start."""
    start = engine.start

    async def start_and_fail() -> None:
        await start()

        def give_up() -> None:
            engine.state = "failed"
            engine.failure = ErrorRecord(code="engine_failed", message="the engine died too often", http_status=503)

        asyncio.get_running_loop().call_later(seconds, give_up)

    engine.start = start_and_fail  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
