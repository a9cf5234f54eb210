"""`tunechat run`: through a server, and through an engine of its own."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunechat.serve.commands import run as run_module
from tunechat.serve.commands.asking import Question, ask_engine, ask_server, await_ready
from tunechat.serve.commands.server import Server
from tunechat.serve.contract.errors import ContextLengthExceeded, EngineFailed, TunechatError, Unavailable
from tunechat.serve.contract.messages import Loading, SequenceOutput
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.settings import SettingsError

from .conftest import Done, FakeServer, good_stream, refusal

Tunechat = Callable[..., Done]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_streams_the_answer(tunechat: Tunechat, served: FakeServer) -> None:
    assert tunechat("run", "Say hello.") == Done(0, "Hello there\n", "")


def test_json_holds_everything(tunechat: Tunechat, served: FakeServer) -> None:
    arguments = ("--system", "Be short.", "--temperature", "0", "--max-tokens", "1k", "--seed", "7")
    reply = json.loads(tunechat("run", "Say hello.", "--json", *arguments).out)
    assert reply == {
        "source": "http://127.0.0.1:8000",
        "model": "tiny",
        "text": "Hello there",
        "finish_reason": "stop",
        "system_fingerprint": "fp_1",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    assert json.loads(served.requests[-1].content) == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Say hello."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_completion_tokens": 1000,
        "seed": 7,
    }


def test_refusal_of_the_server_is_one_line(tunechat: Tunechat, served: FakeServer) -> None:
    assert tunechat("run", "x", "--model", "other") == Done(1, "", "error: no such model\n")


def test_answer_that_breaks_off_is_an_error(server: Server, fake: FakeServer) -> None:
    fake.stream = lambda body: good_stream(body)[:2]
    fake.ending = ""
    pieces: list[str] = []
    with pytest.raises(TunechatError, match="broke off"):
        ask_server(server, Question(prompt="x"), pieces.append)
    assert "".join(pieces) == "Hello"


def test_waits_for_a_server_that_loads(server: Server, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    states = [
        {"status": "starting", "stage": "download", "fraction": 0.5},
        {"status": "starting"},
        {"status": "loading"},
    ]
    answers = [httpx.Response(503, json=state) for state in states]
    fake.answers["/readyz"] = iter([*answers, httpx.Response(200, json={"status": "ready"})])
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    seen: list[tuple[str, float | None]] = []
    await_ready(server, 60, lambda stage, fraction=None: seen.append((stage, fraction)))
    assert seen == [("download", 0.5), ("waiting", None), ("waiting", None)]


def test_does_not_wait_for_a_server_that_failed(server: Server, fake: FakeServer) -> None:
    fake.answers["/readyz"] = refusal(503, "x", "x")
    with pytest.raises(Unavailable, match="is not ready"):
        await_ready(server, 60, lambda stage, fraction=None: None)


@pytest.mark.parametrize(
    ("prompt", "piped", "joined"),
    [("ask", "", "ask"), (None, "text\n", "text"), ("ask", "text\n", "ask\n\ntext"), ("ask", "\n", "ask")],
)
def test_piped_input_comes_after_the_prompt(prompt: str | None, piped: str, joined: str) -> None:
    assert run_module._joined(prompt, piped) == joined


def test_nothing_to_ask_is_a_usage_error(tunechat: Tunechat, served: FakeServer) -> None:
    done = tunechat("run")
    assert (done.code, done.err) == (2, "error: nothing to ask; give a prompt, or pipe one in\n")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Puts bytes into a pipe that stands for stdin."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as stdin, open(writer, "wb") as end:
        monkeypatch.setattr("sys.stdin", stdin)

        def put(data: bytes) -> None:
            end.write(data)
            end.close()

        yield put


def test_pipe_is_read(tunechat: Tunechat, served: FakeServer, pipe: Callable[[bytes], None]) -> None:
    pipe("grüße\n".encode())
    assert tunechat("run", "Say").code == 0
    assert json.loads(served.requests[-1].content)["messages"] == [{"role": "user", "content": "Say\n\ngrüße"}]


def test_pipe_must_be_utf8(tunechat: Tunechat, served: FakeServer, pipe: Callable[[bytes], None]) -> None:
    pipe(b"\xff\xfe")
    done = tunechat("run")
    assert done.code == 2
    assert done.err.startswith("error: the piped input is not UTF-8")


def test_pipe_is_bounded(pipe: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "MAX_INPUT_BYTES", 8)
    pipe(b"x" * 9)
    with pytest.raises(SettingsError, match="larger than"):
        run_module._piped()


@pytest.mark.parametrize("text", ["0", "-1", "many", "17M"])
def test_max_tokens_is_bounded(tunechat: Tunechat, served: FakeServer, text: str) -> None:
    done = tunechat("run", "x", f"--max-tokens={text}")
    assert done.code == 2
    assert "--max-tokens" in done.err


def test_model_text_cannot_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "a\x1b]52;c;cm0=\x07b\x9b2Jc\r\x08d\n\te\x7f"
    for stream, shown in ((Terminal(), "a]52;c;cm0=b2Jcd\n\te"), (io.StringIO(), hostile)):
        monkeypatch.setattr("sys.stdout", stream)
        run_module._shower()(hostile)
        assert stream.getvalue() == shown


class FakeEngine:
    """An engine that gives one token after another, or fails."""

    def __init__(self, outputs: list[SequenceOutput], failure: TunechatError | None = None) -> None:
        self.outputs = outputs
        self.failure = failure
        self.loading = Loading(stage="loading", fraction=0.5)
        self.events: list[str] = []
        self.asked: tuple[list[int], SamplingParams] | None = None

    async def start(self) -> None:
        self.events.append("start")

    async def wait_ready(self) -> Any:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(
            entry="/nowhere", context_length=10, model="tiny", weights_fingerprint="sha256:0123456789abcdef"
        )

    async def close(self) -> None:
        self.events.append("close")

    async def generate(
        self, prompt: list[int], params: SamplingParams, *, sequence: str
    ) -> AsyncIterator[SequenceOutput]:
        self.asked = (prompt, params)
        for output in self.outputs:
            yield output


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text side whose tokens are characters."""

    class Detokenizer:
        def push(self, tokens: list[int]) -> str:
            return "".join(map(chr, tokens))

        def finish(self) -> str:
            return "."

    text = SimpleNamespace(
        encode_chat=lambda messages: [ord(letter) for letter in messages[-1]["content"]],
        detokenizer=Detokenizer,
        eos_token_ids=(2,),
    )
    monkeypatch.setattr("tunechat.serve.text.ModelText.load", lambda entry: text)


def ask(engine: FakeEngine, question: Question) -> tuple[Any, str]:
    pieces: list[str] = []
    reply = asyncio.run(ask_engine(cast(Any, engine), question, pieces.append, lambda stage, fraction=None: None))
    return reply, "".join(pieces)


@pytest.mark.usefixtures("letters")
def test_own_engine_answers_and_is_closed() -> None:
    outputs = [
        SequenceOutput(sequence="run", tokens=[72]),
        SequenceOutput(sequence="run", tokens=[105], finish="stop", stop_token=2),
    ]
    engine = FakeEngine(outputs)
    reply, shown = ask(engine, Question(prompt="abc", temperature=0.0, seed=7))
    assert (shown, reply.text, reply.finish_reason, reply.source) == ("Hi.", "Hi.", "stop", "engine")
    assert reply.usage == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert reply.system_fingerprint == "fp_0123456789ab"
    assert engine.events == ["start", "close"]
    assert engine.asked is not None
    prompt, params = engine.asked
    assert prompt == [97, 98, 99]
    assert (params.max_tokens, params.temperature, params.seed, params.stop_token_ids) == (7, 0.0, 7, (2,))


@pytest.mark.usefixtures("letters")
def test_own_engine_never_cuts_a_prompt() -> None:
    for question in (Question(prompt="a" * 10), Question(prompt="abc", max_tokens=8)):
        engine = FakeEngine([])
        with pytest.raises(ContextLengthExceeded, match="10"):
            ask(engine, question)
        assert engine.events == ["start", "close"]


@pytest.mark.usefixtures("letters")
def test_own_engine_that_fails_is_told_and_closed() -> None:
    engine = FakeEngine([], failure=EngineFailed("no such device"))
    with pytest.raises(EngineFailed, match="no such device"):
        ask(engine, Question(prompt="abc"))
    assert engine.events == ["start", "close"]
    error = EngineFailed("it died").record
    engine = FakeEngine([SequenceOutput(sequence="run", tokens=[72]), SequenceOutput(sequence="run", error=error)])
    with pytest.raises(TunechatError, match="it died"):
        ask(engine, Question(prompt="abc"))


def test_local_engine_is_used_when_nothing_answers(
    tunechat: Tunechat, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    async def answer(engine: Any, question: Question, show: Any, report: Any) -> Any:
        seen.append((engine.options.home, engine.options.threads, question.prompt))
        show("local")
        return SimpleNamespace(text="local")

    monkeypatch.setattr("tunechat.serve.commands.asking.ask_engine", answer)
    monkeypatch.setenv("TUNECHAT_PORT", "1")
    assert tunechat("run", "x", "--threads", "1") == Done(0, "local\n", "")
    assert seen == [(str(home), 1, "x")]
