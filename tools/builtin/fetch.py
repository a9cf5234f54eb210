"""`fetch`: the text of a public web page. Off by default: it sends what the model writes to other machines."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpcore
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..addresses import GuardedBackend
from ..errors import ToolFailed

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

MAX_URL = 2000
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?|\[[0-9a-f:.]+\]")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEXT = re.compile(r"text/|application/(?:[\w.+-]*\+)?(?:json|xml)\b|application/(?:yaml|toml|javascript)\b")
_SILENT = frozenset({"head", "script", "style", "template", "noscript", "svg"})
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BREAKS = frozenset(
    (*_HEADINGS, "article", "br", "dd", "div", "dt", "header", "li", "ol", "p", "pre", "section", "table", "td", "th")
) | {"tr", "ul"}


def clean_url(text: str) -> str:
    """The one way to write a URL: lower-case scheme and host, no user, no fragment. Raises ValueError for others."""
    if len(text) > MAX_URL or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"a URL has at most {MAX_URL} printable characters, without spaces")
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("only http:// and https:// URLs can be fetched")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not carry a user or a password")
    host = parts.hostname.encode("idna").decode("ascii") if not parts.hostname.isascii() else parts.hostname
    host = f"[{host}]" if ":" in host else host.lower()
    if not _HOST.fullmatch(host):
        raise ValueError("this is no name of a host")
    default = {"http": 80, "https": 443}[parts.scheme]
    port = "" if parts.port in {None, default} else f":{parts.port}"
    return urlunsplit((parts.scheme, host + port, parts.path or "/", parts.query, ""))


class FetchArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Annotated[
        Annotated[str, Field(max_length=MAX_URL), AfterValidator(clean_url)],
        Field(description="Address of the page, such as https://example.org/page."),
    ]


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bytes that are read, seconds in all, and redirects that are followed."""

    size: int = 2 << 20
    seconds: float = 20.0
    redirects: int = 5


@dataclass(slots=True)
class Fetcher:
    """Fetches pages; every connection, after a redirect too, goes through the backend that judges its address."""

    limits: FetchLimits = field(default_factory=FetchLimits)
    backend: httpcore.AsyncNetworkBackend = field(default_factory=GuardedBackend)

    async def fetch(self, url: str) -> str:
        """The page's address and text. Raises ToolFailed for refused hosts, errors, other content, and limits."""
        try:
            async with (
                asyncio.timeout(self.limits.seconds),
                httpcore.AsyncConnectionPool(network_backend=self.backend, max_connections=1, retries=0) as pool,
            ):
                for _ in range(self.limits.redirects + 1):
                    target = await self._one(pool, url)
                    if isinstance(target, str):
                        return target
                    url = target.url
        except TimeoutError as error:
            raise ToolFailed(f"the page took longer than {self.limits.seconds:g} seconds") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise ToolFailed(f"the page cannot be fetched: {type(error).__name__}") from error
        raise ToolFailed(f"the page redirects more than {self.limits.redirects} times")

    async def _one(self, pool: httpcore.AsyncConnectionPool, url: str) -> str | _Redirect:
        headers = {
            "accept": "text/html, text/*, application/json",
            "accept-encoding": "identity",
            "user-agent": "tunechat",
        }
        host = urlsplit(url).netloc
        async with pool.stream("GET", url, headers=[("host", host), *headers.items()]) as response:
            told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS and "location" in told:
                try:
                    return _Redirect(clean_url(urljoin(url, told["location"])))
                except ValueError as error:
                    raise ToolFailed(f"the page redirects to where this tool may not go: {error}") from error
            if response.status >= 400:
                raise ToolFailed(f"the server answered with status {response.status}")
            kind = told.get("content-type", "text/plain").lower()
            if not _TEXT.match(kind) or told.get("content-encoding", "identity") != "identity":
                raise ToolFailed(f"the page is no text but {kind.partition(';')[0][:80]}")
            data = bytearray()
            async for chunk in response.aiter_stream():
                data += chunk
                if len(data) > self.limits.size:
                    break
        text = bytes(data[: self.limits.size]).decode(_charset(kind), "replace")
        text = text_of_html(text) if "html" in kind else text
        return f"{url}\n\n{text}" + ("\n[cut]" if len(data) > self.limits.size else "")


@dataclass(frozen=True, slots=True)
class _Redirect:
    url: str


def text_of_html(html: str) -> str:
    """What a reader of the page would see, as plain lines."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._silent: str | None = None
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silent is None and tag in _SILENT:
            self._silent, self._depth = tag, 1
        elif self._silent == tag:
            self._depth += 1
        elif tag in _BREAKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if self._silent == tag:
            self._depth -= 1
            if self._depth == 0:
                self._silent = None
        elif tag == "title" or tag in _BREAKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if self._silent is None:
            self.pieces.append(data)


def _charset(kind: str) -> str:
    match = re.search(r"charset=\"?([\w-]{1,40})", kind)
    try:
        return "utf-8" if match is None or "".encode(match[1]) else match[1]
    except LookupError:
        return "utf-8"


def make(fetcher: Fetcher | None = None) -> BaseTool:
    from langchain_core.tools import StructuredTool

    reader = fetcher or Fetcher()

    async def run(url: str) -> str:
        return await reader.fetch(url)

    return StructuredTool.from_function(
        coroutine=run, name="fetch", description="Read the text of a public web page.", args_schema=FetchArgs
    )
