"""One question to a model: through a running server, or through an engine of one's own without HTTP."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.errors import TunechatError, Unavailable
from .output import Report

if TYPE_CHECKING:
    from ..contract.messages import EngineInfo
    from ..engine.client import EngineClient
    from .server import Server

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how the answer is sampled. None leaves a choice to whoever answers."""

    prompt: str
    system: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]


@dataclass(slots=True)
class Reply:
    """The whole answer. `source` is the server's URL, or "engine" for one of our own."""

    source: str
    model: str = ""
    text: str = ""
    finish_reason: str | None = None
    system_fingerprint: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def await_ready(server: Server, limit: float, report: Report) -> None:
    """Returns when the server takes requests. Raises Unavailable when it never will, or not within `limit` seconds."""
    until = time.monotonic() + limit
    while (response := server.send("GET", "/readyz")).status_code != 200:
        state = response.json() if response.headers.get("content-type", "").startswith("application/json") else {}
        if state.get("status") not in {"new", "starting", "loading", "restarting"}:
            raise Unavailable(f"the server at {server.url} is {state.get('status') or 'not ready'}")
        if time.monotonic() > until:
            raise Unavailable(f"the server at {server.url} was not ready within {limit:.0f} seconds")
        report(str(state.get("stage") or "waiting"), state.get("fraction"))
        time.sleep(0.3)


def ask_server(server: Server, question: Question, show: Show) -> Reply:
    """The server's answer; `show` gets each piece of text as it comes. Raises the error that the server tells."""
    from .server import DONE, chunk_of

    body: dict[str, Any] = {
        "model": question.model or server.get("/v1/models")["data"][0]["id"],
        "messages": question.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name, value in (
        ("temperature", question.temperature),
        ("max_completion_tokens", question.max_tokens),
        ("seed", question.seed),
    ):
        if value is not None:
            body[name] = value
    reply = Reply(source=server.url)
    for data in server.stream("/v1/chat/completions", body):
        if data == DONE:
            break
        chunk = chunk_of(data)
        reply.model = chunk.get("model") or reply.model
        reply.system_fingerprint = chunk.get("system_fingerprint") or reply.system_fingerprint
        reply.usage = chunk.get("usage") or reply.usage
        for choice in chunk.get("choices") or ():
            reply.finish_reason = choice.get("finish_reason") or reply.finish_reason
            piece = (choice.get("delta") or {}).get("content") or ""
            reply.text += piece
            show(piece)
    if reply.finish_reason is None:
        raise TunechatError("the server's answer broke off before its end")
    return reply


async def ask_engine(engine: EngineClient, question: Question, show: Show, report: Report) -> Reply:
    """The answer of an engine that is started for this question. Raises what its start or the question failed with."""
    from ..contract.sampling import SamplingParams
    from ..text import ModelText, check_context
    from .starting import started

    async with started(engine, report) as info:
        text = ModelText.load(Path(info.entry))
        prompt = text.encode_chat(question.messages)
        room = check_context(len(prompt), question.max_tokens, info.context_length, param="max_tokens")
        params = SamplingParams(
            max_tokens=room,
            temperature=1.0 if question.temperature is None else question.temperature,
            seed=secrets.randbits(63) if question.seed is None else question.seed,
            stop_token_ids=tuple(text.eos_token_ids),
        )
        reply = Reply(source="engine", model=info.model, system_fingerprint=_fingerprint(info))
        detokenizer = text.detokenizer()
        generated = 0
        async for output in engine.generate(prompt, params, sequence="run"):
            if output.error is not None:
                raise TunechatError.from_record(output.error)
            generated += len(output.tokens)
            reply.finish_reason = output.finish
            piece = detokenizer.push(output.tokens) + (detokenizer.finish() if output.finish else "")
            reply.text += piece
            show(piece)
        reply.usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": generated,
            "total_tokens": len(prompt) + generated,
        }
        return reply


def _fingerprint(info: EngineInfo) -> str:
    """As the server writes it."""
    return f"fp_{info.weights_fingerprint.rpartition(':')[2][:12]}"
