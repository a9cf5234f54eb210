"""Tokens to text, piece by piece."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Container, Iterable


class Detokenizer:
    """Turns a stream of tokens into a stream of text: all pieces together are the text of all tokens together.

    A character that is spread over several tokens comes out once it is whole. Bytes that are not UTF-8 become U+FFFD,
    one for each ill-formed sequence (Unicode 15, section 3.9, as Python and the web do it). Each token is looked
    at once, so the work is linear.

    `token_bytes` gives the bytes of a token (and, on request, its bytes at the beginning of a text), `hidden` are
    tokens that make no text, `strip` the characters removed at the beginning of the text, where they stand there.
    """

    def __init__(
        self, token_bytes: Callable[[int, bool], bytes], *, hidden: Container[int], strip: str = "", first: bool = True
    ) -> None:
        self._token_bytes = token_bytes
        self._hidden = hidden
        self._strip = strip
        self._first = first
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, tokens: Iterable[int]) -> str:
        """The text that is certain after these tokens."""
        data = bytearray()
        for token in tokens:
            if token not in self._hidden:
                data += self._token_bytes(token, self._first)
                self._first = False
        return self._without_prefix(self._utf8.decode(bytes(data)))

    def finish(self) -> str:
        """The rest: U+FFFD where the last character is not whole, or nothing."""
        return self._without_prefix(self._utf8.decode(b"", final=True))

    def _without_prefix(self, text: str) -> str:
        while text and self._strip:
            if text[0] != self._strip[0]:
                self._strip = ""
                break
            text, self._strip = text[1:], self._strip[1:]
        return text
