"""Transfers that go on: what may be continued is, and nothing else is ever mixed with what is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.base import transfer
from tunechat.serve.base.transfer import Transfer, Unavailable
from tunechat.serve.contract.errors import ModelError

URL = "https://index.invalid/files/x.whl?token=s3cret"
CONTENT = bytes(range(256)) * 8
DIGEST = hashlib.sha256(CONTENT).hexdigest()
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_PAUSE", 0.0)


class Cut(httpx.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self.content
        raise httpx.ReadError("reset")


class Server:
    """Answers with `content`; the first requests are cut after as many bytes as `cuts` says, None for no answer."""

    def __init__(self, content: bytes = CONTENT, *, etag: str | None = None, cuts: tuple[int | None, ...] = ()) -> None:
        self.content = content
        self.etag = etag
        self.cuts = list(cuts)
        self.asked: list[tuple[str | None, str | None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        wanted, condition = request.headers.get("range"), request.headers.get("if-range")
        self.asked.append((wanted, condition))
        cut = self.cuts.pop(0) if self.cuts else len(self.content)
        if cut is None:
            raise httpx.ConnectError("refused")
        headers = {"etag": self.etag} if self.etag else {}
        begin, status = 0, 200
        if wanted and condition in {None, self.etag}:
            begin, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            headers["content-range"] = f"bytes {begin}-{len(self.content) - 1}/{len(self.content)}"
        headers["content-length"] = str(len(self.content) - begin)
        part = self.content[begin : begin + cut]
        stream = Cut(part) if len(part) < len(self.content) - begin else httpx.ByteStream(part)
        return httpx.Response(status, headers=headers, stream=stream)


def run(answer: Answer, folder: Path, sha256: str | None = DIGEST) -> bytes:
    with httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True) as client:
        path, digest = Transfer(client, URL, sha256, folder).run(lambda done: None)
    content = path.read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    return content


def begun(folder: Path, server: Server, sha256: str | None = DIGEST) -> None:
    """Leaves the first 100 bytes of the server's file, as a process that was killed would."""
    server.cuts = [100, *[None] * 5]
    with pytest.raises(ModelError, match="stopped after 100 bytes"):
        run(server, folder, sha256)
    server.asked.clear()


@given(st.lists(st.integers(1, 300), max_size=20))
def test_however_often_it_breaks_off_the_file_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    server = Server(cuts=tuple(cuts))
    assert run(server, tmp_path_factory.mktemp("transfer")) == CONTENT
    assert server.asked[0] == (None, None)
    assert all(wanted is not None for wanted, _ in server.asked[1:])


def test_no_token_of_the_address_is_written(tmp_path: Path) -> None:
    begun(tmp_path, Server(etag='"a"'), sha256=None)
    assert all(b"s3cret" not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_strong_tag_guards_the_rest(tmp_path: Path) -> None:
    server = Server(etag='"a"')
    begun(tmp_path, server, sha256=None)
    assert run(server, tmp_path, sha256=None) == CONTENT
    assert server.asked == [("bytes=100-", '"a"')]


@pytest.mark.parametrize("etag", [None, 'W/"a"'])
def test_without_a_hash_or_a_strong_tag_it_starts_over(tmp_path: Path, etag: str | None) -> None:
    server = Server(etag=etag)
    with pytest.raises(ModelError):
        server.cuts = [100, None, None, None, None, None]
        run(server, tmp_path, None)
    server.asked.clear()
    server.content = CONTENT[::-1]
    assert run(server, tmp_path, None) == CONTENT[::-1]
    assert server.asked == [(None, None)]


def test_another_hash_is_another_file(tmp_path: Path) -> None:
    server = Server()
    begun(tmp_path, server)
    server.content = CONTENT[::-1]
    assert run(server, tmp_path, hashlib.sha256(server.content).hexdigest()) == server.content
    assert server.asked == [(None, None)]


def test_a_damaged_beginning_starts_over_once(tmp_path: Path) -> None:
    server = Server()
    begun(tmp_path, server)
    (tmp_path / "content").write_bytes(b"?" * 100)
    assert run(server, tmp_path) == CONTENT
    assert server.asked == [("bytes=100-", None), (None, None)]


def test_a_beginning_without_a_record_starts_over(tmp_path: Path) -> None:
    server = Server()
    begun(tmp_path, server)
    (tmp_path / "record.json").write_text("{")
    assert run(server, tmp_path) == CONTENT
    assert server.asked == [(None, None)]


def test_a_whole_file_is_not_asked_for_again(tmp_path: Path) -> None:
    server = Server()
    run(server, tmp_path)
    server.asked.clear()
    assert run(server, tmp_path) == CONTENT
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (416, {"content-range": "bytes */50"}),
        (206, {"content-range": "bytes 90-2047/2048"}),
        (206, {"content-range": "bytes 100-2047/4096"}),
        (206, {"content-range": "bytes 100-2047/2048", "etag": 'W/"other"'}),
        (206, {}),
    ],
)
def test_a_rest_that_does_not_fit_starts_over(tmp_path: Path, status: int, headers: dict[str, str]) -> None:
    server = Server(etag='W/"one"')
    begun(tmp_path, server)
    assert json.loads((tmp_path / "record.json").read_text())["size"] == len(CONTENT)

    def answer(request: httpx.Request) -> httpx.Response:
        plain = server(request)
        return httpx.Response(status, headers=headers, content=CONTENT[100:]) if "range" in request.headers else plain

    assert run(answer, tmp_path) == CONTENT
    assert [wanted for wanted, _ in server.asked] == ["bytes=100-", None]


@pytest.mark.parametrize("status", [206, 401, 403, 404, 416, 500, 503])
def test_a_server_that_gives_nothing_is_told_as_such(tmp_path: Path, status: int) -> None:
    with pytest.raises(Unavailable) as caught:
        run(lambda request: httpx.Response(status), tmp_path)
    assert "s3cret" not in str(caught.value)


def test_encryption_is_not_given_up_on_the_way(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            return httpx.Response(302, headers={"location": "http://index.invalid/x.whl"})
        return httpx.Response(200, content=CONTENT)

    with pytest.raises(Unavailable, match="HTTPS"):
        run(answer, tmp_path)


def test_compressed_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="compresses"):
        run(lambda request: httpx.Response(200, headers={"content-encoding": "br"}, stream=Cut(b"")), tmp_path)


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    server = Server(cuts=(100,))
    calls = iter([200, 503, 429, 200])

    def answer(request: httpx.Request) -> httpx.Response:
        return server(request) if next(calls) == 200 else httpx.Response(503)

    assert run(answer, tmp_path) == CONTENT


def test_more_than_is_allowed_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 100)
    with pytest.raises(ModelError, match="more than"):
        run(lambda request: httpx.Response(200, content=iter([CONTENT])), tmp_path)
