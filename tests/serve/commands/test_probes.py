"""A good server passes every probe; each kind of bad one fails the probe made for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tunechat.serve.commands.probes import probe_server
from tunechat.serve.commands.server import Server

from .conftest import FakeServer, good_stream, refusal


def results(server: Server) -> dict[str, str]:
    return {check.name: check.status for check in probe_server(server)}


def test_good_server_passes(server: Server) -> None:
    found = {check.name: check for check in probe_server(server)}
    assert {name for name, check in found.items() if check.status == "fail"} == set()
    assert {name for name, check in found.items() if check.status == "skip"} == {
        "tool calls",
        "responses",
        "count_tokens",
    }
    assert "context_length_exceeded" in found["no truncation"].detail


def test_server_without_models_ends_the_probing(server: Server, fake: FakeServer) -> None:
    fake.answers["/v1/models"] = httpx.Response(200, json={"object": "list", "data": []})
    assert results(server) == {"models": "fail"}


def test_wrong_key_is_told(server: Server, fake: FakeServer) -> None:
    fake.answers["/v1/models"] = refusal(401, "invalid_api_key", "wrong key")
    (check,) = probe_server(server)
    assert (check.status, check.detail) == ("fail", "the key was refused: wrong key")


def without_usage_choices(body: dict[str, Any]) -> list[dict[str, Any]]:
    stream = good_stream(body)
    if "usage" in stream[-1]:
        del stream[-1]["choices"]
    return stream


def spoil_cut(fake: FakeServer) -> None:
    fake.context = 10**9


def spoil_usage(fake: FakeServer) -> None:
    fake.stream = without_usage_choices


def spoil_ending(fake: FakeServer) -> None:
    fake.ending = ""


def spoil_completions(fake: FakeServer) -> None:
    fake.answers["/v1/completions"] = httpx.Response(404, json={"detail": "Not Found"})


def spoil_tools(fake: FakeServer) -> None:
    fake.ignores_tools = True


@pytest.mark.parametrize(
    ("spoil", "failing"),
    [
        (spoil_cut, {"no truncation"}),
        (spoil_usage, {"stream with usage"}),
        (spoil_ending, {"stream", "stream with usage"}),
        (spoil_completions, {"completions"}),
        (spoil_tools, {"tool calls"}),
    ],
)
def test_each_fault_fails_its_probe(
    server: Server, fake: FakeServer, spoil: Callable[[FakeServer], None], failing: set[str]
) -> None:
    spoil(fake)
    assert {name for name, status in results(server).items() if status == "fail"} == failing


def test_error_of_another_shape_fails(server: Server, fake: FakeServer) -> None:
    fake.answers["/v1/chat/completions"] = httpx.Response(422, json={"detail": "no"})
    found = results(server)
    assert [found[name] for name in ("chat", "stream", "unknown model", "tool calls")] == ["fail"] * 4
