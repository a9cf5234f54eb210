from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.contract.errors import ConfigError
from tunechat.tools.mcp.config import read_servers


def written(folder: Path, content: Any) -> Path:
    path = folder / "mcp.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_reads_the_shape_that_others_use(tmp_path: Path) -> None:
    servers = {
        "git": {
            "command": "uvx",
            "args": ["mcp-git", "${REPO:-/tmp}"],
            "env": {"TOKEN": "${TOKEN}"},
            "autoApprove": [],
        },
        "web": {"type": "http", "url": "https://mcp.example/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        "off": {"command": "x", "disabled": True},
    }
    found = read_servers(written(tmp_path, {"mcpServers": servers, "other": 1}), {"TOKEN": "t"})
    assert set(found) == {"git", "web"}
    assert found["git"].args == ("mcp-git", "/tmp") and found["git"].env == {"TOKEN": "t"}
    assert found["web"].headers == {"Authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ([], "."),
        ({}, "mcpServers"),
        ({"mcpServers": {"a b": {"command": "x"}}}, "name"),
        ({"mcpServers": {"a": {}}}, "either"),
        ({"mcpServers": {"a": {"command": "x", "url": "http://y"}}}, "either"),
        ({"mcpServers": {"a": {"url": "file:///etc/passwd"}}}, "http://"),
        ({"mcpServers": {"a": {"url": "http://y", "type": "sse"}}}, "sse"),
        ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, "args"),
        ({"mcpServers": {"a": {"command": "${NOWHERE}"}}}, "NOWHERE"),
        ({"mcpServers": {f"a{n}": {"command": "x"} for n in range(65)}}, "64"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_servers(written(tmp_path, content), {})


def test_errors_never_show_values(tmp_path: Path) -> None:
    content = {"mcpServers": {"a": {"command": "x", "env": {"KEY": ["the-secret"]}}}}
    with pytest.raises(ConfigError) as failed:
        read_servers(written(tmp_path, content), {})
    assert "the-secret" not in str(failed.value)


def test_a_missing_or_large_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_servers(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="larger"):
        read_servers(written(tmp_path, " " * (1 << 21)))
