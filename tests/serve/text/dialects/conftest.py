"""The default model's text side, where it has been prepared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunechat.serve.text import ModelText


@pytest.fixture(scope="session")
def default_text() -> ModelText:
    found = sorted(Path(os.environ.get("TUNECHAT_TEST_HOME", "/nonexistent")).glob("models/smollm2*"))
    if not found:
        pytest.skip("the default model has not been prepared")
    return ModelText.load(found[0])
