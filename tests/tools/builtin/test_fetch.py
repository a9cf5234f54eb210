from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.tools.addresses import GuardedBackend
from tunechat.tools.builtin.fetch import FetchArgs, Fetcher, FetchLimits, clean_url, make, text_of_html
from tunechat.tools.builtin.web_search import make as make_web_search
from tunechat.tools.builtin.web_search import web_search
from tunechat.tools.errors import ToolFailed

Answer = Callable[[str], bytes]


@asynccontextmanager
async def site(answer: Answer, *, stays: bool = False) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that answers a path with raw bytes, and the heads of the requests that came."""
    heads: list[str] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        writer.write(answer(head.split()[1]))
        try:
            await writer.drain()
            if stays:
                await reader.read()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()


def page(body: bytes, kind: str = "text/html; charset=utf-8", status: str = "200 OK", **headers: str) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def fetcher(**limits: float) -> Fetcher:
    """A fetcher for which the loopback is public: everything else about it is as it always is."""

    async def home(host: str, port: int) -> list[str]:
        return ["10.0.0.1"] if host == "private.example" else ["127.0.0.1"]

    backend = GuardedBackend(permits=lambda address: address == "127.0.0.1", resolver=home)
    return Fetcher(FetchLimits(**limits), backend)  # type: ignore[arg-type]


async def test_gives_the_text_of_a_page() -> None:
    html = b"<html><head><title>T</title><script>bad()</script></head><body><h1>Hi</h1><p>a <b>b</b>&amp;c</p></body>"
    async with site(lambda path: page(html)) as (port, heads):
        text = await fetcher().fetch(f"http://a.example:{port}/x?y=1")
    assert text == f"http://a.example:{port}/x?y=1\n\nHi\n\na b&c"
    assert heads[0].startswith("GET /x?y=1 HTTP/1.1\r\nhost: a.example:")
    assert "cookie" not in heads[0].lower() and "authorization" not in heads[0].lower()


@pytest.mark.parametrize(
    "target",
    [
        "http://private.example/",
        "http://user:pw@a.example/",
        "file:///etc/passwd",
        "gopher://a.example/",
        "//private.example/x",
    ],
)
async def test_a_redirect_is_judged_like_the_first_address(target: str) -> None:
    def answer(path: str) -> bytes:
        return page(b"", status="302 Found", location=target)

    async with site(answer) as (port, heads):
        with pytest.raises(ToolFailed, match=r"public|redirects to"):
            await fetcher().fetch(f"http://a.example:{port}/")
        assert len(heads) == 1


async def test_redirects_end() -> None:
    async with site(lambda path: page(b"", status="301 M", location=path + "x")) as (port, heads):
        with pytest.raises(ToolFailed, match="more than 3"):
            await fetcher(redirects=3).fetch(f"http://a.example:{port}/")
        assert len(heads) == 4


async def test_a_huge_page_is_cut() -> None:
    async with site(lambda path: page(b"y" * 100_000, "text/plain")) as (port, _):
        text = await fetcher(size=1000).fetch(f"http://a.example:{port}/")
    assert text.endswith("y\n[cut]") and len(text) < 1100


async def test_a_slow_page_is_given_up() -> None:
    async with site(lambda path: b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", stays=True) as (port, _):
        with pytest.raises(ToolFailed, match="longer than"):
            await fetcher(seconds=0.2).fetch(f"http://a.example:{port}/")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (page(b"\0\1", "image/png"), "no text"),
        (page(b"x", content_encoding="gzip"), "no text"),
        (page(b"x", status="500 Oops"), "status 500"),
        (b"garbage\r\n\r\n", "cannot be fetched"),
        (b"", "cannot be fetched"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n", "cannot be fetched"),
    ],
)
async def test_other_answers_are_refused(raw: bytes, told: str) -> None:
    async with site(lambda path: raw) as (port, _):
        with pytest.raises(ToolFailed, match=told):
            await fetcher().fetch(f"http://a.example:{port}/")


async def test_the_real_fetcher_does_not_reach_this_machine() -> None:
    async with site(lambda path: page(b"secret")) as (port, heads):
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "127.1", "0.0.0.0"):
            with pytest.raises(ToolFailed):
                await Fetcher(FetchLimits(seconds=5)).fetch(clean_url(f"http://{host}:{port}/"))
        assert heads == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("HTTPS://Docs.Example:443/a?b=c#d", "https://docs.example/a?b=c"),
        ("http://a.example", "http://a.example/"),
        ("http://a.example:8080/", "http://a.example:8080/"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://[2606:4700::1111]/", "http://[2606:4700::1111]/"),
    ],
)
def test_urls_in_one_form(text: str, clean: str) -> None:
    assert clean_url(text) == clean and clean_url(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "ftp://a/",
        "http://",
        "http://u@a.example/",
        "http://a.example@b.example/",
        "http://a\\@b/",
        "http://a b/",
        "http://a.example/\n",
        "http://a.example:99999/",
        "javascript:alert(1)",
        "http://" + "a" * 3000,
        "http://a%00b/",
    ],
)
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        clean_url(text)
    with pytest.raises(ValueError, match=r"."):
        FetchArgs(url=text)


@given(st.text(alphabet="<>/abp!-&;='\" scriptyle\n", max_size=300))
def test_any_html_becomes_text(html: str) -> None:
    assert "\n\n\n" not in text_of_html(html)


async def test_the_tools() -> None:
    def answer(path: str) -> bytes:
        return page(
            json.dumps({"organic": [{"title": "T", "link": "L", "snippet": "S"}, "bad"]}).encode(), "application/json"
        )

    async with site(lambda path: page(b"hello", "text/plain")) as (port, _):
        assert "hello" in await make(fetcher()).ainvoke({"url": f"http://a.example:{port}/"})
    async with site(answer) as (port, heads):
        tool = make_web_search("the-key", f"http://127.0.0.1:{port}/search")
        assert await tool.ainvoke({"query": "x", "count": 1}) == "T\nL\nS"
        assert "x-api-key: the-key" in heads[0].lower()


@pytest.mark.parametrize("raw", [page(b"{", "application/json"), page(b"[]"), page(b"x", status="403 No"), b""])
async def test_web_search_never_names_the_key(raw: bytes) -> None:
    async with site(lambda path: raw) as (port, _):
        with pytest.raises(ToolFailed) as failed:
            await web_search("the-key", "x", 1, f"http://127.0.0.1:{port}/")
    assert "the-key" not in failed.value.message
