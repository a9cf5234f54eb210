"""Errors survive the way between processes."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import (
    ConfigError,
    ContextLengthExceeded,
    EngineFailed,
    InvalidRequest,
    ModelError,
    Overloaded,
    TunechatError,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("a", param="device"), ConfigError),
        (ModelError("b"), ModelError),
        (ContextLengthExceeded("c", param="messages"), InvalidRequest),
        (Overloaded("d", retry_after=7), Overloaded),
        (EngineFailed("e", retry_after=3), Unavailable),
        (TunechatError("f"), TunechatError),
    ],
)
def test_a_record_becomes_the_error_again(error: TunechatError, kind: type[TunechatError]) -> None:
    again = TunechatError.from_record(error.record)
    assert type(again) is kind
    assert again.record == error.record
