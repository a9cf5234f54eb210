from __future__ import annotations

import msgspec
import pytest

from tunechat.serve.engine.options import EngineOptions


def test_options_survive_the_command_line() -> None:
    options = EngineOptions(model="m", home="h", device="cpu", threads=2, cache_bytes=1 << 30, prefix_cache=False)
    assert EngineOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "m"}',
        '{"model": "m", "home": "h", "treads": 2}',
        '{"model": "m", "home": "h", "device": "tpu"}',
        '{"model": "m", "home": "h", "threads": 0}',
        '{"model": "m", "home": "h", "max_running": 0}',
        '{"model": "m", "home": "h", "max_running": 64, "max_batch_tokens": 63}',
    ],
)
def test_what_is_missing_unknown_or_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        EngineOptions.from_json(text)
