"""The default model's text side."""

from __future__ import annotations

from pathlib import Path

import pytest
from llguidance import LLTokenizer

from tunechat.serve.text import ModelText


@pytest.fixture(scope="session")
def default_text(default_entry: Path) -> ModelText:
    return ModelText.load(default_entry)


@pytest.fixture(scope="session")
def default_tokenizer(default_entry: Path) -> LLTokenizer:
    """The default model's; it has no marker of any family."""
    return LLTokenizer((default_entry / "tokenizer.json").read_text(encoding="utf-8"))
