"""Toolboxes for the tests of tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import StructuredTool
from pydantic import BaseModel, ConfigDict, Field

from tunechat.tools.audit import Audit
from tunechat.tools.budgets import Budget
from tunechat.tools.permissions import Policy
from tunechat.tools.records import Permission
from tunechat.tools.registry import Registry
from tunechat.tools.toolbox import Toolbox


class EchoArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=100)
    times: int = Field(default=1, ge=1, le=1000)


class Workbench:
    """A toolbox with tools that are easy to watch: `echo` (ALWAYS), `delete` (ASK), `slow`, `broken`, `large`."""

    def __init__(self, folder: Path, rules: list[str], budget: Budget) -> None:
        self.ran: list[str] = []
        self.cancelled: list[str] = []
        self.log = folder / "tools.log"
        self._slow = asyncio.Semaphore(0)
        registry = Registry()

        def echo(text: str, times: int = 1) -> str:
            self.ran.append("echo")
            return text * times

        def delete(text: str, times: int = 1) -> str:
            self.ran.append("delete")
            return "deleted"

        async def slow(text: str, times: int = 1) -> str:
            self.ran.append("slow")
            self._slow.release()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.append(text)
                raise
            return "late"

        def broken(text: str, times: int = 1) -> str:
            raise RuntimeError("secret detail /etc/x")

        for function in (echo, delete, broken):
            registry.add(
                StructuredTool.from_function(
                    function, name=function.__name__, description=function.__name__, args_schema=EchoArgs
                ),
                permission=Permission.ASK if function is delete else Permission.ALWAYS,
            )
        registry.add(
            StructuredTool.from_function(coroutine=slow, name="slow", description="slow", args_schema=EchoArgs),
            permission=Permission.ALWAYS,
        )
        self.box = Toolbox(registry, Policy.parse(rules), Audit(self.log), budget)

    async def started(self, count: int) -> None:
        """Returns when `slow` runs `count` times."""
        for _ in range(count):
            await self._slow.acquire()

    @property
    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def workbench(tmp_path: Path) -> Callable[..., Workbench]:
    """Makes a workbench with rules and limits."""

    def make(*rules: str, **budget: Any) -> Workbench:
        return Workbench(tmp_path, list(rules), Budget(**budget))

    return make
