"""Which part may import which, and what must never be loaded where. Imports inside functions count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for part in ("serve", "tools", "trainer") for path in (ROOT / part).rglob("*.py"))

# Every part may also import itself and serve.settings, except those that import nothing of ours.
ALLOWED: dict[str, set[str]] = {
    "serve.setting_kinds": set(),
    "serve.settings": {"serve.setting_kinds"},
    "serve.contract": set(),
    "serve.kernels": set(),
    "serve.text": {"serve.contract", "serve.settings"},
    "serve.base": {"serve.contract", "serve.kernels", "serve.settings"},
    "serve.adapters": {"serve.contract"},
    "serve.jobs": {"serve.adapters", "serve.contract"},
    "serve.engine": {"serve.adapters", "serve.contract", "serve.base", "serve.kernels", "serve.settings"},
    "serve.api": {
        "serve.adapters",
        "serve.contract",
        "serve.text",
        "serve.engine.client",
        "serve.jobs",
        "serve.settings",
        "tools",
    },
    "serve.commands": {
        "serve.adapters",
        "serve.api",
        "serve.base",
        "serve.contract",
        "serve.engine",
        "serve.jobs",
        "serve.kernels",
        "serve.setting_kinds",
        "serve.settings",
        "serve.text",
        "tools",
        "trainer",
    },
    "serve.cli": {"serve.commands", "serve.contract", "serve.settings"},
    "tools": {"serve.contract"},
    "trainer.data": {"serve.contract", "serve.text"},
    "trainer": {"serve.adapters", "serve.base", "serve.contract", "serve.kernels", "serve.text"},
}
WITHOUT_TORCH = (
    "serve.adapters",
    "serve.contract",
    "serve.jobs",
    "serve.text",
    "serve.api",
    "serve.settings",
    "serve.cli",
    "tools",
    "trainer.data",
)
MODEL_LIBRARIES = {"torch", "transformers", "peft", "bitsandbytes", "accelerate"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import of `path`; a name imported from a package counts as `package.name`."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            for alias in node.names:
                yield node.lineno, ".".join([*base, *(node.module or "").split("."), alias.name]).replace("..", ".")


def part_of(module: str) -> str | None:
    return next((part for part in ALLOWED if module == part or module.startswith(part + ".")), None)


def within(module: str, allowed: set[str]) -> bool:
    return any(module == part or module.startswith(part + ".") for part in allowed)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_what_its_part_may(path: Path) -> None:
    module = module_of(path)
    if module == "serve":
        return
    part = part_of(module)
    assert part is not None, f"{module} belongs to no part; add it to the table here and in docs/architecture.md"
    for line, imported in imports_of(path):
        assert not imported.startswith("tunechat"), f"{path}:{line} imports {imported}; use a relative import"
        if imported.split(".")[0] in {"serve", "tools", "trainer"}:
            assert within(imported, ALLOWED[part] | {part}), f"{path}:{line}: {part} may not import {imported}"


@pytest.mark.parametrize("path", [path for path in SOURCES if within(module_of(path), set(WITHOUT_TORCH))], ids=str)
def test_names_no_model_library(path: Path) -> None:
    for line, imported in imports_of(path):
        assert imported.split(".")[0] not in MODEL_LIBRARIES, f"{path}:{line} imports {imported}"


def loaded_after(code: str, *names: str) -> set[str]:
    """Which of the top-level packages `names` a fresh interpreter has loaded after `code`."""
    report = f"\nimport sys\nprint('LOADED', *sorted(set({names!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("part", ["adapters", "contract", "jobs", "text", "api", "settings", "engine.client", "cli"])
def test_every_module_of_the_part_loads_without_model_libraries(part: str) -> None:
    modules = ["tunechat." + module_of(path) for path in SOURCES if within(module_of(path), {f"serve.{part}"})]
    assert modules, f"serve.{part} has no modules"
    assert loaded_after("\n".join(f"import {module}" for module in modules), *MODEL_LIBRARIES) == set()


def test_permissions_and_records_load_without_langchain() -> None:
    code = "import tunechat.tools.permissions, tunechat.tools.records"
    assert loaded_after(code, "langchain_core", "langchain", "langgraph", "mcp", "openai", "httpx") == set()


def test_the_gateway_loads_no_tools_unless_asked() -> None:
    modules = ["tunechat." + module_of(path) for path in SOURCES if within(module_of(path), {"serve.api"})]
    code = "\n".join(f"import {module}" for module in modules)
    assert loaded_after(code, "langchain_core", "langchain", "langgraph", "mcp", "openai", "sympy") == set()


HELP = """
import sys
sys.argv = ["tunechat", "--help"]
from tunechat.serve.cli import main
try:
    main()
except SystemExit as exit:
    if exit.code:
        raise
"""


def test_help_loads_nothing_heavy() -> None:
    heavy = (
        "fastapi",
        "uvicorn",
        "numpy",
        "tokenizers",
        "httpx",
        "jinja2",
        "langchain",
        "textual",
        "mcp",
        *MODEL_LIBRARIES,
    )
    assert loaded_after(HELP, *heavy) == set()
