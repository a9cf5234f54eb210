"""Forms as clients write them, in whatever pieces they arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from tunechat.serve.api.errors import UnsupportedMediaType
from tunechat.serve.api.files.form import FileForm
from tunechat.serve.contract.errors import InvalidRequest, TunechatError, Unsupported

PURPOSE = b'Content-Disposition: form-data; name="purpose"\r\n\r\nfine-tune'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\nContent-Type: text/plain\r\n\r\n'


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b" + end


def asked(body: bytes, cuts: list[int] | None = None, kind: str = "multipart/form-data; boundary=b") -> FileForm:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts or [])})
    pieces = [body[low:high] for low, high in pairwise(edges)]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}
    return FileForm(Request(scope, receive))


async def read(form: FileForm) -> tuple[str, str, bytes]:
    name = await form.open()
    content = b"".join([chunk async for chunk in form.content()])
    return name, form.purpose(), content


@settings(max_examples=60, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=200), st.text("\r\n-b", max_size=60).map(str.encode)).filter(
        lambda content: b"\r\n--b" not in b"\r\n" + content
    ),
    cuts=st.lists(st.integers(0, 500), max_size=12),
    is_first=st.booleans(),
)
async def test_any_pieces_give_the_same(content: bytes, cuts: list[int], is_first: bool) -> None:
    parts = [PURPOSE, FILE + content]
    body = form(*(parts if is_first else parts[::-1]))
    assert await read(asked(body, cuts)) == ("a.jsonl", "fine-tune", content)


async def test_other_fields_are_passed_over() -> None:
    other = b'Content-Disposition: form-data; name="user"\r\n\r\nme'
    assert await read(asked(form(other, PURPOSE, FILE + b"x", other))) == ("a.jsonl", "fine-tune", b"x")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no file"),
        (form(PURPOSE), "no file"),
        (form(FILE + b"x"), "no purpose"),
        (form(PURPOSE, FILE + b"x", end=b""), "incomplete"),
        (form(PURPOSE, FILE + b"x")[:-8], "incomplete"),
        (form(FILE + b"x", FILE + b"y"), "one file"),
        (form(PURPOSE + b"e" * 5000, FILE + b"x"), "longer than"),
        (form(*[PURPOSE.replace(b"purpose", b"p%d" % number) for number in range(40)]), "more than 32 fields"),
        (b"no form at all", "damaged"),
    ],
)
async def test_what_is_wrong_is_told(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await read(asked(body))


async def test_an_end_of_life_is_refused_by_name() -> None:
    expiry = b'Content-Disposition: form-data; name="expires_after[seconds]"\r\n\r\n3600'
    with pytest.raises(Unsupported) as caught:
        await read(asked(form(PURPOSE, expiry, FILE + b"x")))
    assert caught.value.param == "expires_after"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("application/json", UnsupportedMediaType),
        ("", UnsupportedMediaType),
        ("multipart/form-data", InvalidRequest),
        (f"multipart/form-data; boundary={'b' * 1000}", InvalidRequest),
    ],
)
def test_other_bodies_are_refused(kind: str, error: type[TunechatError]) -> None:
    with pytest.raises(error):
        asked(b"", kind=kind)
