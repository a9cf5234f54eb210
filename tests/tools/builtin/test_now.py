from __future__ import annotations

import re

import pytest

from tunechat.tools.builtin.now import make, now
from tunechat.tools.errors import ToolFailed


def test_tells_date_weekday_and_offset() -> None:
    assert re.fullmatch(r"\w+day, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d .*\(UTC[+-]\d{4}\)", now())
    assert re.fullmatch(r"\w+day, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\+0000 \(UTC\)", now("UTC"))
    assert "+0900 (Asia/Tokyo)" in make().invoke({"timezone": "Asia/Tokyo"})


@pytest.mark.parametrize("name", ["Mars/Base", "../../etc/passwd", "/etc/passwd", "UTC\0", "Europe"])
def test_unknown_zones_are_refused(name: str) -> None:
    with pytest.raises(ToolFailed):
        now(name)
