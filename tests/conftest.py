"""What all tests share: the default model, prepared once a session, and how hypothesis runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.source import DEFAULT_MODEL

# Machines that run tests are shared: how long an example takes says nothing about the code.
settings.register_profile("tunechat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tunechat")


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
    """The prepared default model, quantised as a user gets it."""
    return prepare(DEFAULT_MODEL, quant="int4", home=default_home, report=quiet)
