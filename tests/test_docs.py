"""The documentation says what the source says, and links to what exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
API = sorted((ROOT / "serve" / "api").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", ["modules.md", "configuration.md", "recipes.md"])
def test_written_parts_are_up_to_date(page: str) -> None:
    """`make docs` mends it."""
    spec = importlib.util.spec_from_file_location("update", ROOT / "docs" / "update.py")
    assert spec is not None and spec.loader is not None
    update = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(update)
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == update.updated(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_command_is_in_both_readmes() -> None:
    from tunechat.serve.commands.root import app

    names = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    for readme in ("README.md", "README.zh-CN.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        assert [name for name in names if f"`tunechat {name}" not in text] == [], readme


def test_api_page_names_every_field_and_route() -> None:
    from tunechat.serve.api.schemas.chat import ChatRequest
    from tunechat.serve.api.schemas.completions import CompletionRequest
    from tunechat.serve.api.schemas.messages import MessagesRequest

    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    fields = {*ChatRequest.model_fields, *CompletionRequest.model_fields, *MessagesRequest.model_fields}
    assert [field for field in sorted(fields) if f"`{field}`" not in text] == []
    routes = re.findall(r'router\.(get|post)\("([^"]+)"', "".join(path.read_text() for path in API))
    assert len(routes) > 5
    missing = [f"{method.upper()} {re.sub(':path', '', path)}" for method, path in routes]
    assert [route for route in missing if f"`{route}`" not in text] == []


def test_api_page_names_every_error_code() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    codes = set(re.findall(r'\bcode ?= ?"([a-z_]+)"', "".join(path.read_text() for path in API)))
    assert "unknown_host" in codes
    assert sorted(code for code in codes if f"`{code}`" not in text) == []
