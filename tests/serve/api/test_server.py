"""The server as a process: its address, its ready line, its signals, its one socket."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tunechat.serve.api.server import bind, refuse_open_public
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.contract.errors import ConfigError
from tunechat.tests.serve.api.harness import chat, events_of
from tunechat.tests.serve.api.server_process import Start

ROOT = Path(__file__).parents[3]
URL = "/v1/chat/completions"


def test_the_ready_line_holds_a_command_that_works(start: Start) -> None:
    server = start()
    assert server.ready.count("\n") == 1
    curl, url, header_flag, header, data_flag, data = shlex.split(server.ready.partition("try: ")[2])
    assert (curl, header_flag, data_flag) == ("curl", "-H", "-d")
    response = server.client.post(url, content=data, headers=dict([header.split(": ")]))
    assert response.json()["choices"][0]["message"]["content"] == "Hello, world"
    sockets = [c for c in psutil.Process(server.popen.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [(c.laddr.ip, c.laddr.port) for c in sockets] == [server.address]


def test_sigterm_lets_running_requests_finish_and_ends_with_0(start: Start) -> None:
    server = start(engine={"answer": "x" * 3000, "chunk": 1}, settings={"drain_timeout": 20})
    with server.client.stream("POST", URL, json=chat(stream=True, max_tokens=300)) as response:
        lines = response.iter_lines()
        next(lines)
        server.popen.send_signal(signal.SIGTERM)
        body = "\n".join(lines)
    assert events_of("data: {}\n" + body)[-1] == "[DONE]"
    status, errors = server.end()
    assert status == 0, errors
    assert "Traceback" not in errors


def test_a_second_sigterm_ends_streams_with_one_error_event(start: Start) -> None:
    server = start(gate=3, settings={"drain_timeout": 60})
    with server.client.stream("POST", URL, json=chat(stream=True)) as response:
        lines = response.iter_lines()
        text = ""
        while "content" not in text.partition("\n\n")[2]:
            text += next(lines) + "\n"
        server.popen.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=server.client.base_url) as client:
            while client.get("/readyz").status_code == 200:
                time.sleep(0.01)
            refused = client.post(URL, json=chat())
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        server.popen.send_signal(signal.SIGTERM)
        text += "\n".join(lines)
    events = events_of(text)
    assert [event for event in events if "error" in event] == events[-1:]
    assert events[-1]["error"]["code"] == "stopping"
    assert server.end()[0] == 0


def test_the_grace_runs_out(start: Start) -> None:
    server = start(gate=3, settings={"drain_timeout": 0.1})
    with server.client.stream("POST", URL, json=chat(stream=True)) as response:
        lines = response.iter_lines()
        next(lines)
        server.popen.send_signal(signal.SIGINT)
        assert "stopping" in "\n".join(lines)
    assert server.end()[0] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_that_closes_ends_its_request(start: Start, stream: bool) -> None:
    server = start(gate=3)
    body = json.dumps(chat(stream=stream)).encode()
    with socket.create_connection(server.address) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % (URL.encode(), len(body))
            + body
        )
        time.sleep(0.2)
    ended = re.compile(rf'tunechat_requests_total.*"{URL}".*status="{200 if stream else 499}"')
    deadline = time.monotonic() + 10
    while not ended.search(server.client.get("/metrics").text):
        assert time.monotonic() < deadline, "the request still runs"
        time.sleep(0.02)


def test_an_engine_that_is_given_up_ends_the_server_with_one_line(start: Start) -> None:
    server = start(fail_after=0.3)
    status, errors = server.end()
    assert status == 2
    assert errors.splitlines()[-1] == "tunechat: the engine died too often"
    assert "Traceback" not in errors


def test_a_reader_that_stops_is_cut_and_others_go_on(start: Start) -> None:
    server = start(engine={"answer": "x" * 480, "chunk": 1}, settings={"send_timeout": 0.5})
    frozen = socket.socket()
    frozen.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    frozen.connect(server.address)
    body = json.dumps(chat(stream=True, n=32)).encode()
    frozen.sendall(
        b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % (URL.encode(), len(body))
        + body
    )
    for _ in range(3):
        assert events_of(server.client.post(URL, json=chat(stream=True)).content)[-1] == "[DONE]"
    deadline = time.monotonic() + 15
    open_ = 1
    while open_ and time.monotonic() < deadline:
        time.sleep(0.1)
        connections = psutil.Process(server.popen.pid).net_connections()
        open_ = len([c for c in connections if c.raddr and c.raddr.port == frozen.getsockname()[1]])
    assert not open_
    frozen.close()


def test_a_port_in_use_is_one_line(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, errors = start(wait=False, settings={"port": taken.getsockname()[1]}).end()
    assert status == 2
    assert errors.count("\n") == 1
    assert "in use" in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
def test_a_public_address_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="no API key"):
        refuse_open_public(ApiSettings(model="m", host=host))
    refuse_open_public(ApiSettings(model="m", host=host, insecure=True))
    refuse_open_public(ApiSettings(model="m", host=host, api_keys=("key",)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.4.5"])
def test_a_private_one_does_not(host: str) -> None:
    refuse_open_public(ApiSettings(model="m", host=host))


@pytest.mark.parametrize("host", ["no.such.name.invalid", "203.0.113.7"])
def test_an_address_of_another_machine_is_one_line(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(host, 0)
    assert "\n" not in caught.value.message
    assert os.strerror(0) not in caught.value.message
