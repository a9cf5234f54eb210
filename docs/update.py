"""Writes the parts of the documentation that the source determines: `make docs`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = (
    *(f"serve/{name}" for name in ("settings.py", "setting_kinds.py", "cli.py", "commands", "contract", "kernels")),
    *(
        f"serve/{name}"
        for name in ("text", "base", "text/dialects", "text/grammars", "adapters", "jobs", "engine", "api")
    ),
    *(f"serve/api/{name}" for name in ("data", "files", "messages", "responses", "tuning")),
    *(
        "tools",
        "tools/builtin",
        "tools/mcp",
        "tools/agent",
        "trainer",
        "trainer/data",
        "trainer/data/files",
        "trainer/data/formats",
        "trainer/data/check",
        "trainer/inquiry",
    ),
)


def purpose(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split("\n")[:1]).strip()


def modules() -> str:
    """One line a module, by part."""
    lines: list[str] = []
    for part in PARTS:
        path = ROOT / part
        if path.is_file():
            lines.append(f"**`{path.relative_to(ROOT).with_suffix('')}`**: {purpose(path)}\n")
            continue
        lines.append(f"**`{part}`**: {purpose(path / '__init__.py')}\n")
        lines += [f"- `{file.stem}`: {purpose(file)}" for file in sorted(path.glob("[a-z]*.py"))]
        lines.append("")
    return "\n".join(lines)


def settings() -> str:
    """The table of all settings."""
    from tunechat.serve.commands.config import reference

    return reference()


def recipe_keys() -> str:
    """The table of all keys of a recipe."""
    from tunechat.trainer.reference import reference

    return reference()


def recipe_list() -> str:
    """The table of the ready-made recipes."""
    from tunechat.trainer.catalogue import ready_made

    rows = (f"| `{recipe.name}` | {recipe.about} |\n" for recipe in ready_made())
    return "| recipe | for |\n|---|---|\n" + "".join(rows)


def updated(page: str) -> str:
    """`docs/PAGE` with everything between its marks as the source has it now."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    makers = {"modules": modules, "settings": settings, "recipe keys": recipe_keys, "recipes": recipe_list}
    for name, make in makers.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        if begin in text:
            head, _, rest = text.partition(begin)
            text = head + begin + make() + end + rest.partition(end)[2]
    return text


PAGES = ("modules.md", "configuration.md", "recipes.md")


def main() -> None:
    for page in PAGES:
        (ROOT / "docs" / page).write_text(updated(page), encoding="utf-8")


if __name__ == "__main__":
    main()
