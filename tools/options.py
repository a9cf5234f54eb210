"""What the tools need to know, as plain data: which are on, what they may see, who may run what, and the limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .budgets import Budget
from .permissions import Policy

OFF_BY_DEFAULT = ("fetch", "python")


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """`root` is the folder that `read_file`, `list_files` and `grep` see, `documents` the one that `search` searches;
    without them there are no such tools. `enabled` switches on what is off by default. `files` are Python files with
    tools of the user. `mcp` is a file with `mcpServers`. `search_key` is the user's key for web search.
    """

    home: Path
    root: Path | None = None
    documents: Path | None = None
    enabled: tuple[str, ...] = ()
    policy: Policy = field(default_factory=Policy)
    files: tuple[Path, ...] = ()
    mcp: Path | None = None
    search_key: str = field(default="", repr=False)
    entry_points: bool = True
    budget: Budget = field(default_factory=Budget)
