"""schemathesis against the application: valid, invalid and hostile bodies for every operation in its description."""

from __future__ import annotations

import tempfile
from pathlib import Path

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tunechat.serve.api.app import create_app
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.text import ModelText
from tunechat.tests.fuzzing import CONFIG
from tunechat.tests.serve.api.harness import LEAKS, MODEL, ScriptedEngine, write_entry

_FOLDER = tempfile.TemporaryDirectory()


def _application() -> FastAPI:
    entry = write_entry(Path(_FOLDER.name))
    engine = ScriptedEngine(text=ModelText.load(entry), entry=entry, answer="xyz")
    # The fuzzer's client names this host, and begins and ends the application around every call.
    folder = Path(_FOLDER.name)
    stores = {"adapter_store": folder / "adapters", "response_store": folder / "responses.db"}
    return create_app(engine, ApiSettings(model=MODEL, allowed_hosts=("testserver",), **stores))


schema = schemathesis.openapi.from_asgi("/openapi.json", _application(), config=CONFIG)


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_described(case: schemathesis.Case) -> None:
    # What one field allows may contradict another; a JSON schema does not say so, and 400 is right then.
    response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
    assert response.status_code < 500 or response.status_code == 503
    if response.status_code >= 400:
        leak = LEAKS.search(response.content)
        # A name that the request itself brought may look like anything.
        assert leak is None or leak.group().decode() in f"{case.path_parameters} {case.query} {case.body}"
