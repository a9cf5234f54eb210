"""A small client of a running server, for the commands that ask one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from ..contract.errors import ErrorRecord, TunechatError, Unavailable
from ..settings import Settings

DONE = "[DONE]"
READ_SECONDS = 600.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Server:
    """One server, by its base URL (no `/v1`). Close it, or use it as a context manager."""

    def __init__(self, url: str, api_key: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(READ_SECONDS, connect=3.0),
            transport=transport,
            # A proxy of the environment cannot reach this machine's own loopback address.
            trust_env=urlsplit(url).hostname not in _LOOPBACK,
        )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The server that the settings name, with their first key."""
        keys = settings.plain_api_keys
        return cls(settings.server_url, keys[0] if keys else None)

    @classmethod
    def admin_of(cls, settings: Settings) -> Self:
        """The same, with the first key that may change adapters: an admin key where there are any."""
        keys = settings.plain_admin_keys or settings.plain_api_keys
        return cls(settings.server_url, keys[0] if keys else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def answers(self) -> bool:
        """Whether something speaks HTTP there and says that it lives."""
        try:
            return self._client.get("/livez", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False

    def send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The response, whatever its status. Raises Unavailable when no server answers."""
        try:
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def get(self, path: str) -> Any:
        """The JSON of a GET. Raises the error that the server's body describes."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer. Raises like `get`."""
        return _json_of(self.send(method, path, body))

    def upload(self, path: str, files: Mapping[str, Path]) -> Any:
        """The JSON of a POST with these files as multipart/form-data, read piece by piece. Raises like `get`."""
        with ExitStack() as stack:
            parts = {name: (name, stack.enter_context(file.open("rb"))) for name, file in files.items()}
            try:
                return _json_of(self._client.post(path, files=parts))
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error

    def send_file(self, path: str, file: Path, name: str, fields: Mapping[str, str]) -> Any:
        """The JSON of a POST of one form: `fields`, then the content of `file`, called `name`, read piece by piece.

        Raises like `get`.
        """
        with file.open("rb") as content:
            try:
                return _json_of(self._client.post(path, data=dict(fields), files={"file": (name, content)}))
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error

    def download(self, path: str, target: Path) -> None:
        """Writes the body of a GET into the new file `target`, piece by piece. Raises like `get`."""
        try:
            with self._client.stream("GET", path) as response, target.open("xb") as file:
                if response.is_error:
                    response.read()
                    raise error_of(response)
                for piece in response.iter_bytes():
                    file.write(piece)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def stream(self, path: str, body: dict[str, Any] | None = None) -> Iterator[str]:
        """The `data` of each server-sent event of a POST, or of a GET without a body, "[DONE]" included.

        Raises like `get`.
        """
        try:
            with self._client.stream("GET" if body is None else "POST", path, json=body) as response:
                if response.is_error:
                    response.read()
                    raise error_of(response)
                yield from events(lines_of(response.iter_text()))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> Unavailable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unavailable(f"no server answers at {self.url}; `tunechat serve` starts one")
        return Unavailable(f"the server at {self.url} did not finish its answer: {error or type(error).__name__}")


def lines_of(pieces: Iterator[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces, each ended by LF or CRLF and nothing else.

    httpx ends lines at U+2028 and others too, which JSON may hold as they are.
    """
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        for line in lines:
            yield line.removesuffix("\r")
    if rest:
        yield rest


def events(lines: Iterator[str]) -> Iterator[str]:
    """The `data` of each event in a text/event-stream, comments left out (WHATWG HTML, 9.2.6)."""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def chunk_of(data: str) -> dict[str, Any]:
    """The JSON object of one event. Raises the error that it carries, if it is one."""
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise Unavailable("the server sent an event that is not JSON") from error
    if not isinstance(chunk, dict):
        raise Unavailable("the server sent an event that is no JSON object")
    if isinstance(chunk.get("error"), dict):
        raise _told(chunk["error"], 500)
    return chunk


def _json_of(response: httpx.Response) -> Any:
    if response.is_error:
        raise error_of(response)
    try:
        return response.json()
    except ValueError as error:
        raise Unavailable("the server's answer is not JSON; is it a tunechat server?") from error


def error_of(response: httpx.Response) -> TunechatError:
    """The error that a response with an error status describes, in OpenAI's shape or not."""
    try:
        body = response.json()
    except ValueError:
        body = None
    described = body.get("error") if isinstance(body, dict) else None
    if isinstance(described, dict):
        return _told(described, response.status_code)
    return TunechatError(f"the server answered {response.status_code} {response.reason_phrase} without saying why")


def _told(described: dict[str, Any], status: int) -> TunechatError:
    return TunechatError.from_record(
        ErrorRecord(
            code=str(described.get("code") or "error"),
            message=str(described.get("message") or "no message"),
            http_status=status,
            param=described.get("param") if isinstance(described.get("param"), str) else None,
        )
    )
