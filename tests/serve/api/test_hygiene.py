"""Rules about the source of this part that no single test of behaviour would keep."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tunechat.serve.api
from tunechat.serve.api.app import create_app
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.harness import MODEL, ScriptedEngine

SOURCES = sorted(Path(tunechat.serve.api.__file__).parent.rglob("*.py"))
FORBIDDEN = re.compile(r"BaseHTTPMiddleware|\.middleware\(|\burl_for\b|request\.url\b|is_disconnected|CORSMiddleware")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_hides_disconnects_or_trusts_the_host_header(path: Path) -> None:
    assert not FORBIDDEN.search(path.read_text(encoding="utf-8"))


def test_the_application_imports_quickly_and_without_torch() -> None:
    code = (
        "import sys, time; began = time.process_time(); import tunechat.serve.api.app, tunechat.serve.api.server; "
        "print(time.process_time() - began, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, _, modules = result.stdout.strip().partition(" ")
    assert modules == "[]"
    assert float(seconds) < 5  # 0.4 on an idle machine


def test_no_environment_makes_requests_leave_this_server(
    monkeypatch: pytest.MonkeyPatch, text: ModelText, entry: Path
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    app = create_app(ScriptedEngine(text=text, entry=entry), ApiSettings(model=MODEL))
    assert not app._native_telemetry.enabled()
