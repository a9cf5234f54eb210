"""The registry that the options describe: built-in tools, the user's files, and installed packages' entry points."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..serve.contract.errors import ConfigError
from .options import OFF_BY_DEFAULT, ToolOptions
from .records import Permission
from .registry import Registry

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

GROUP = "tunechat.tools"
_log = logging.getLogger(__name__)


def load_registry(options: ToolOptions) -> Registry:
    """All tools but those of MCP servers, which need processes. Raises ConfigError that names file and mend."""
    unknown = sorted(set(options.enabled) - set(OFF_BY_DEFAULT))
    if unknown:
        raise ConfigError(f"{unknown[0]!r} cannot be enabled; only {' and '.join(OFF_BY_DEFAULT)} are off by default")
    registry = Registry()
    _add_builtin(registry, options)
    for path in options.files:
        for tool in tools_of_file(path):
            registry.add(tool, origin=f"file {path.name}", effects=True)
    if options.entry_points:
        for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
            for tool in tools_of_entry_point(point):
                registry.add(tool, origin=f"package {point.dist.name if point.dist else point.name}", effects=True)
    return registry


def _add_builtin(registry: Registry, options: ToolOptions) -> None:
    from .builtin import calculate, now, solve

    for module in (calculate, solve, now):
        registry.add(module.make(), permission=Permission.ALWAYS)
    if options.documents is not None:
        from .builtin import index, search

        documents = index.DocumentIndex(_folder(options.documents, "tool_documents"), options.home)
        registry.add(search.make(documents), permission=Permission.ALWAYS)
    if options.root is not None:
        from .builtin import files
        from .paths import Root

        for tool in files.make(Root(_folder(options.root, "tool_root"))):
            registry.add(tool, permission=Permission.ALWAYS)
    if options.search_key:
        from .builtin import web_search

        registry.add(web_search.make(options.search_key), effects=True)
    if "fetch" in options.enabled:
        from .builtin import fetch

        registry.add(fetch.make(), effects=True)
    if "python" in options.enabled:
        from .builtin import python

        registry.add(python.make(), effects=True)


def _folder(path: Path, setting: str) -> Path:
    if not path.is_dir():
        raise ConfigError(f"{setting} is no folder: {path}")
    return path


def tools_of_file(path: Path) -> list[BaseTool]:
    """The LangChain tools at the top of a Python file: those in `TOOLS`, or all. Runs the file: it is the user's own.

    Raises ConfigError when it cannot be run or has none.
    """
    spec = importlib.util.spec_from_file_location(f"tunechat_user_tools_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"there is no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and postponed annotations look their module up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises is told in one line, with where it came from
        del sys.modules[spec.name]
        _log.debug("a file of tools failed", exc_info=True)
        raise ConfigError(f"{path} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, "TOOLS", None)
    return _tools_in(vars(module).values() if found is None else found, str(path))


def tools_of_entry_point(point: EntryPoint) -> list[BaseTool]:
    """The tools that an installed package offers: a tool, a list of tools, or a function that gives either."""
    try:
        value = point.load()
        value = value() if _is_factory(value) else value
    except Exception as error:  # the package's code may raise anything; it is told which package it was
        raise ConfigError(f"the entry point {point.name} ({point.value}) failed: {error}") from error
    return _tools_in(
        value if isinstance(value, Iterable) and not _is_tool(value) else [value], f"entry point {point.name}"
    )


def _tools_in(values: Iterable[Any], source: str) -> list[BaseTool]:
    found = [value for value in values if _is_tool(value)]
    if not found:
        raise ConfigError(f"{source} has no tools; write functions with langchain's @tool, or a list TOOLS")
    return found


def _is_tool(value: Any) -> bool:
    from langchain_core.tools import BaseTool

    return isinstance(value, BaseTool)


def _is_factory(value: Any) -> bool:
    return isinstance(value, Callable) and not _is_tool(value)  # type: ignore[arg-type]
