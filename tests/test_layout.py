"""Rules about files: packages that are installed, sizes, headers, and what no source may contain."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("serve", "tui", "tools", "trainer")
SOURCES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))
LONGEST = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_packages_are_the_folders_with_an_init() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [path.parent.relative_to(ROOT).parts for path in SOURCES if path.name == "__init__.py"]
    assert sorted(listed) == sorted(["tunechat", *(".".join(("tunechat", *parts)) for parts in found)])


def test_every_source_lies_in_a_package() -> None:
    assert [name_of(path) for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in (*PARTS, "tests", "benchmarks")
        for pattern in ("*.py", "*.c", "*.h")
        for path in (ROOT / folder).rglob(pattern)
    ),
    ids=name_of,
)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def offences(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    for word in ("TODO", "FIXME", "XXX", "NotImplementedError"):
        if word in text:
            yield f"contains {word}"
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Assert():
                yield f"line {line}: assert; raise an error of the tree instead"
            case ast.Import(names=names) if any(alias.name.split(".")[0] in {"pickle", "marshal"} for alias in names):
                yield f"line {line}: unsafe deserialisation"
            case ast.ImportFrom(module="pickle" | "marshal" | "cloudpickle" | "dill"):
                yield f"line {line}: unsafe deserialisation"
            case ast.Call(func=ast.Name(id="eval" | "exec")):
                yield f"line {line}: runs text as code"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen")):
                yield f"line {line}: runs a shell"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load")):
                yield f"line {line}: torch.load reads pickles"
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                yield f"line {line}: runs a shell"
            case ast.keyword(arg="trust_remote_code", value=ast.Constant(value=True)):
                yield f"line {line}: runs code of a model"
            case ast.Name(id="BaseHTTPMiddleware") | ast.alias(name="BaseHTTPMiddleware"):
                yield f"line {line}: BaseHTTPMiddleware hides disconnects; write pure ASGI"
            case ast.ExceptHandler(type=None):
                yield f"line {line}: bare except"
            case ast.ExceptHandler(body=[ast.Pass()]):
                yield f"line {line}: an error is swallowed"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_keeps_the_rules(path: Path) -> None:
    assert list(offences(path)) == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("assert x", 1),
        ("import pickle", 1),
        ("from pickle import loads", 1),
        ("eval('1')", 1),
        ("model.eval()", 0),
        ("run(x, shell=True)", 1),
        ("torch.load(x)", 1),
        ("safetensors.load(x)", 0),
        ("from starlette.middleware.base import BaseHTTPMiddleware", 1),
        ("try:\n    x\nexcept ValueError:\n    pass", 1),
        ("try:\n    x\nexcept ValueError:\n    y()", 0),
    ],
)
def test_the_rules_see_what_they_forbid(tmp_path: Path, code: str, count: int) -> None:
    path = tmp_path / "source.py"
    path.write_text(code)
    assert len(list(offences(path))) == count


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_opens_with_its_purpose(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the first line says what the module gives"
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert futures or path.name == "__init__.py", "from __future__ import annotations"


@pytest.mark.parametrize("target", ["setup", "serve", "test", "acceptance", "check", "bench"])
def test_make_target_installs_first(target: str) -> None:
    """With nothing installed, as on a fresh machine, every target begins by making the environment."""
    plan = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "-m venv .venv" in plan
    assert plan.index("-m venv .venv") < plan.index("pip install")


def test_readme_opens_with_serving_and_testing() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        first = (ROOT / name).read_text(encoding="utf-8").split("```")[1]
        assert "make serve" in first and "make test" in first, name
