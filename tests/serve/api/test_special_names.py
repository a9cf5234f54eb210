"""Names that clients take for OpenAI's own models."""

from __future__ import annotations

import pytest

from tunechat.serve.api.special_names import name_warnings


@pytest.mark.parametrize(
    "name",
    [
        "codex", "my-Codex-2", "gpt-5.2-pro", "gpt-oss-helpdesk", "o1", "O1-mini", "o3-pro", "gpt-4o-x", "grok",
        "o4-mini",
    ],
)  # fmt: skip
def test_special_names_are_warned_of_once(name: str) -> None:
    (warning,) = name_warnings(name)
    assert "another name avoids it" in warning


@pytest.mark.parametrize("name", ["support", "o1x", "foo1", "solo1-a", "gpt", "terse-gpt4", "qwen", "ergo3"])
def test_others_are_not(name: str) -> None:
    assert name_warnings(name) == ()
