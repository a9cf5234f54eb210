"""Frames on the socket between gateway and engine: a 4-byte little-endian length, then one msgpack message."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import msgspec

from .messages import FromEngine, ToEngine

_LENGTH = struct.Struct("<I")
MAX_FRAME_BYTES = 1 << 28

_encoder = msgspec.msgpack.Encoder()
to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


class WireError(Exception):
    """The other side sent bytes that are no message; the connection cannot be used any longer."""


def encode(message: ToEngine | FromEngine) -> bytes:
    """One whole frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into message bodies, however the bytes arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies completed by `data`. Raises WireError for a length that no side would send."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise WireError(f"a frame of {length} bytes is longer than the limit of {MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            yield bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]


def read_messages(connection: socket.socket) -> Iterator[ToEngine]:
    """Messages to the engine until the gateway closes its end. Blocking; for the engine's reader thread."""
    reader = FrameReader()
    while data := connection.recv(1 << 16):
        for body in reader.feed(data):
            try:
                yield to_engine.decode(body)
            except msgspec.DecodeError as error:
                raise WireError(str(error)) from error
