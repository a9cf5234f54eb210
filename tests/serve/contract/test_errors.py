"""Every error keeps its code and its status on the way between processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tunechat.serve.contract import errors
from tunechat.serve.contract.errors import InvalidAdapter, TunechatError


def kinds(root: type[TunechatError]) -> Iterator[type[TunechatError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


KINDS = [kind for kind in kinds(TunechatError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_travels(kind: type[TunechatError]) -> None:
    if issubclass(kind, errors.InvalidData):
        error: TunechatError = kind("what is wrong", "how to mend it", file="a.jsonl", line=3, field="model")
    else:
        error = kind("what is wrong", param="model")
    back = TunechatError.from_record(error.record)
    assert back.record == error.record
    assert isinstance(error, type(back))


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (errors.UnsupportedFormat, "unsupported_format", 422),
        (errors.BaseModelMismatch, "base_model_mismatch", 422),
        (errors.InvalidAdapter, "invalid_adapter", 422),
        (errors.Conflict, "conflict", 409),
        (errors.NameTaken, "name_taken", 409),
        (errors.AdapterCapacity, "adapter_capacity", 503),
    ],
)
def test_codes_of_adapters(kind: type[TunechatError], code: str, status: int) -> None:
    assert (kind.code, kind.http_status) == (code, status)
    assert status != 422 or issubclass(kind, InvalidAdapter)
