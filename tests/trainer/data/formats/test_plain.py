"""Text for pre-training."""

from __future__ import annotations

import pytest

from tunechat.serve.contract.errors import InvalidData
from tunechat.tests.trainer.data.writing import record
from tunechat.trainer.data.formats.plain import Plain


@pytest.mark.parametrize("name", ["text", "content"])
def test_text(name: str) -> None:
    assert Plain().recognises({name: "x", "meta": {}})
    assert Plain().read(record({name: " x\n"})).text == " x\n"


def test_no_text() -> None:
    assert not Plain().recognises({"text": 3})
    with pytest.raises(InvalidData, match="there is no text"):
        Plain().read(record({"title": "x"}))
