"""Short ways to ask an engine in this process for texts of adapters, and to know whether they are right."""

from __future__ import annotations

from tunechat.serve.contract.messages import AdapterUse
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import ToyRunner, alone

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def uses(*digests: str) -> tuple[AdapterUse, ...]:
    return tuple(map(AdapterUse, digests))


def engine(*known: str, folder: str = "ok", max_running: int = 8, **runner: int) -> Harness:
    harness = Harness(ToyRunner(**runner), max_running=max_running)
    harness.add(*known, folder=folder)
    return harness


def ask(harness: Harness, name: str, *digests: str, tokens: int = 6) -> None:
    harness.submit(name, PROMPT, greedy(tokens), adapters=uses(*digests))


def is_right(harness: Harness, name: str, *digests: str, tokens: int = 6) -> bool:
    return harness.result(name) == alone(PROMPT, greedy(tokens), uses(*digests))
