"""What all tests share: the default model, prepared once a session, and how hypothesis runs."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: the threads of two workers would wait for one another, spinning, on the same cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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
    """A home folder of this worker, that holds the default model.

    Models, and adapters trained by tests, are shared by all workers, and kept between runs in `TUNECHAT_TEST_HOME`:
    whoever needs what is not there yet makes it, or waits for who does.
    """
    kept, root = os.environ.get("TUNECHAT_TEST_HOME"), tmp_path_factory.getbasetemp()
    shared = Path(kept) if kept else (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "shared"
    home = root / "home"
    home.mkdir()
    for name in ("models", "style-adapters"):
        (shared / name).mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(shared / name)
    prepare(DEFAULT_MODEL, quant="int4", home=home, report=quiet)
    return home


@pytest.fixture(scope="session")
def default_entry(default_home: Path) -> Path:
    """The prepared default model, quantised as a user gets it."""
    # As the system tells where a file is mapped from.
    return prepare(DEFAULT_MODEL, quant="int4", home=default_home, report=quiet).resolve()


def pytest_itemcollected(item: pytest.Item) -> None:
    """schemathesis gives the tests of all operations one id, and of those that share an id xdist runs only one.

    pytest has no public way to change an id, and since 9.2 another private one.
    """
    label = getattr(item, "operation_label", None)
    if label is None or item.nodeid.endswith(f"[{label}]"):
        return
    nodeid = f"{item.nodeid}[{label}]"
    if hasattr(item, "_id"):
        item._id = type(item._id).parse(nodeid)
    else:
        item._nodeid = nodeid


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write outcome and duration of each test to this Markdown file")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table that `make acceptance` keeps in docs/."""
    target = config.getoption("--table")
    if target is None:
        return
    rows = [
        f"| {report.nodeid.removeprefix('tests/')} | {outcome} | {report.duration:.1f} |"
        for outcome in ("passed", "failed", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
        # A file that is skipped whole has no tests, and took no time.
        if isinstance(report, pytest.TestReport) and (report.when == "call" or outcome != "passed")
    ]
    head = [
        "# The last run of `make acceptance`",
        "",
        *describe_machine(),
        "",
        "| test | outcome | seconds |",
        "|---|---|---|",
    ]
    target.write_text("\n".join([*head, *sorted(rows)]) + "\n", encoding="utf-8")


def describe_machine() -> list[str]:
    from tunechat.benchmarks.machine import describe

    return [f"- {line}" for line in describe()]
