"""Settings have bounds, take no strangers and keep keys to themselves."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tunechat.serve.api.settings import ApiSettings, is_loopback


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 65_536}, {"port": -1}, {"max_body_bytes": 0}, {"send_timeout": 0}, {"send_timeout": float("inf")},
        {"heartbeat_seconds": float("nan")}, {"max_n": 0}, {"model": ""}, {"prot": 1}, {"drain_timeout": -1},
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_or_unknown_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ApiSettings(**({"model": "m"} | wrong))


def test_keys_are_not_shown() -> None:
    assert "hunter2" not in repr(ApiSettings(model="m", api_keys=("hunter2",)))


def test_every_setting_is_described() -> None:
    assert all(field.description for field in ApiSettings.model_fields.values())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.evil.test", "example.org", "", "1270.0.1", "127.0.0.1.example"])
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)
