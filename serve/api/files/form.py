"""The form that an upload is: one file, its purpose, and nothing that is kept in memory. Source: RFC 7578."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from ...contract.errors import InvalidRequest, Unsupported
from ..errors import UnsupportedMediaType

_LONGEST_FIELD = 4096
_MOST_FIELDS = 32


class FileForm:
    """A form, read as it arrives. `open` reads up to the file; then `content` gives the file's bytes, once.

    `purpose` may come before the file or after it.
    """

    def __init__(self, request: Request) -> None:
        """Raises UnsupportedMediaType for another body, InvalidRequest for a form with no boundary."""
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind.lower() != b"multipart/form-data":
            raise UnsupportedMediaType("Send the file as multipart/form-data, with the fields 'purpose' and 'file'.")
        self._stream = request.stream()
        self._field = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._name = ""
        self._text = bytearray()
        self._fields: dict[str, str] = {}
        self._file: str | None = None
        self._is_in_file = False
        self._is_over = False
        self._data: deque[bytes] = deque()
        boundary = options.get(b"boundary", b"")
        try:
            if not boundary:
                raise FormParserError
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header_done,
                    "on_headers_finished": self._headers_done,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_done,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest("The form has no boundary, or one that is too long.", code="invalid_form") from error

    async def open(self) -> str:
        """The name of the file. Raises InvalidRequest for a form that is damaged or has no file."""
        while self._file is None:
            if not await self._read():
                raise InvalidRequest("The form has no file.", param="file", code="invalid_form")
        return self._file

    @property
    def known_purpose(self) -> str | None:
        """The purpose, if it has come."""
        return self._fields.get("purpose")

    def purpose(self) -> str:
        """The purpose, when all has been read. Raises InvalidRequest where there is none."""
        if (purpose := self.known_purpose) is None:
            raise InvalidRequest("The form has no purpose; send purpose=fine-tune.", param="purpose")
        return purpose

    async def content(self) -> AsyncIterator[bytes]:
        """The file's bytes as they arrive, up to the end of the form. Raises InvalidRequest when it has none."""
        while True:
            while self._data:
                yield self._data.popleft()
            if not await self._read():
                break
        if not self._is_over:
            raise InvalidRequest("The form is incomplete.", code="invalid_form")

    async def _read(self) -> bool:
        """Parses what comes next of the body; False at its end."""
        chunk = await anext(self._stream, None)
        if chunk is None:
            return False
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("The form is damaged.", code="invalid_form") from error
        return True

    def _begin(self) -> None:
        self._disposition = b""
        self._field.clear()
        self._value.clear()
        self._text.clear()

    def _header_done(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_done(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_in_file = self._name == "file"
        if self._is_in_file:
            if self._file is not None:
                raise InvalidRequest("Send one file at a time.", param="file", code="invalid_form")
            self._file = options.get(b"filename", b"").decode("utf-8", "replace")
        elif self._name.startswith("expires_after"):
            raise Unsupported("Files do not expire here; delete them instead.", param="expires_after")
        elif len(self._fields) >= _MOST_FIELDS:
            raise InvalidRequest(f"The form has more than {_MOST_FIELDS} fields.", code="invalid_form")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_in_file:
            self._data.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > _LONGEST_FIELD:
            raise InvalidRequest(f"A field of the form is longer than {_LONGEST_FIELD} bytes.", code="invalid_form")

    def _part_done(self) -> None:
        if not self._is_in_file:
            self._fields[self._name[:64]] = self._text.decode("utf-8", "replace")
        self._is_in_file = False

    def _end(self) -> None:
        self._is_over = True
