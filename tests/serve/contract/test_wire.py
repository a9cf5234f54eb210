"""Frames are read however the bytes arrive."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.contract.messages import (
    Abort,
    EngineStats,
    Heartbeat,
    SequenceOutput,
    Shutdown,
    StepOutputs,
    Submit,
)
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.contract.wire import FrameReader, WireError, encode, from_engine, read_messages, to_engine

SENT = [
    Submit(sequence="a", prompt=[1, 2, 3], params=SamplingParams(max_tokens=4, logit_bias={7: -1.5}), salt="s"),
    Abort(sequence="a"),
    Shutdown(),
]


@given(st.lists(st.integers(1, 40), max_size=20))
def test_frames_survive_any_split(sizes: list[int]) -> None:
    data = b"".join(encode(message) for message in SENT)
    reader, found = FrameReader(), []
    for size in [*sizes, len(data)]:
        found += [to_engine.decode(body) for body in reader.feed(data[:size])]
        data = data[size:]
    assert found == SENT


def test_messages_from_the_engine_come_back_as_they_were() -> None:
    message = StepOutputs(outputs=[SequenceOutput(sequence="a", tokens=[5], finish="stop", stop_token=2)])
    for sent in (message, Heartbeat(stats=EngineStats(running=3))):
        (body,) = FrameReader().feed(encode(sent))
        assert from_engine.decode(body) == sent


def test_a_length_that_nobody_sends_is_refused() -> None:
    with pytest.raises(WireError, match="longer than the limit"):
        list(FrameReader().feed(struct.pack("<I", 1 << 31)))


def test_reading_ends_with_the_connection_and_refuses_what_is_no_message() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(encode(SENT[0]) + encode(SENT[1]))
        ours.close()
        assert list(read_messages(theirs)) == SENT[:2]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack("<I", 3) + b"abc")
        with pytest.raises(WireError):
            next(read_messages(theirs))
