"""The bytes that each token stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..contract.errors import ModelError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The printable characters that stand for the 256 bytes in byte-level BPE (GPT-2): bytes that are printable in
    Latin-1 stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


class TokenDecoder:
    """What the decoder of a `tokenizer.json` does, told token by token, so that text can be streamed.

    `to_bytes` gives the bytes of a token inside a text, `to_first_bytes` those at its beginning, and `strip` the
    characters that are removed at the very beginning, one entry a character. Raises ModelError for a decoder
    whose output for a token depends on more than that.
    """

    def __init__(self, config: Mapping[str, Any] | None) -> None:
        self._steps: list[Callable[[str, bool], str]] = []
        self._byte_level = False
        self._byte_fallback = False
        self._fused = False
        self.strip = ""
        for step in _flatten(config):
            self._add(step)

    def to_bytes(self, token: str, *, first: bool = False) -> bytes:
        """UTF-8, whole or in part: a character may be spread over several tokens."""
        if self._byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        for step in self._steps:
            token = step(token, first)
        if self._byte_level and all(character in _ALPHABET for character in token):
            return bytes(_ALPHABET[character] for character in token)
        return token.encode()

    def _add(self, step: Mapping[str, Any]) -> None:
        kind = step["type"]
        if kind == "ByteLevel":
            self._byte_level = True
        elif kind == "ByteFallback":
            self._byte_fallback = True
        elif kind == "Fuse":
            self._fused = True
        elif kind == "Replace" and "String" in step["pattern"]:
            self._steps.append(_replace(step["pattern"]["String"], step["content"]))
        elif kind == "Metaspace":
            scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
            self._steps.append(_metaspace(step["replacement"], drops_first=scheme != "never"))
        elif kind == "Strip" and self._fused and step["stop"] == 0:
            self.strip += step["content"] * step["start"]
        else:
            raise ModelError(f"The tokenizer's decoder {kind!r} is not one that can be streamed.")


def _flatten(config: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if config is None:
        raise ModelError("The tokenizer has no decoder, so its tokens cannot be put together to text.")
    if config["type"] != "Sequence":
        return [config]
    return [step for part in config["decoders"] for step in _flatten(part)]


def _replace(pattern: str, content: str) -> Callable[[str, bool], str]:
    return lambda token, first: token.replace(pattern, content)


def _metaspace(replacement: str, *, drops_first: bool) -> Callable[[str, bool], str]:
    return lambda token, first: token.replace(replacement, "" if first and drops_first else " ")
