"""An engine that follows a script, a byte-level model's text side, and ASGI calls with hostile clients."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.base import MANIFEST_FORMAT, BaseManifest
from tunechat.serve.contract.errors import ErrorRecord, ModelNotFound
from tunechat.serve.contract.messages import (
    AdapterLoaded,
    AdapterUse,
    EngineInfo,
    EngineStats,
    Loading,
    SequenceOutput,
    TokenLogprob,
)
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.text import ModelText

MODEL = "tiny"
FINGERPRINT = "0123456789abcdef" * 4
CONTEXT = 512
HIDDEN = 4
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# What no answer may ever contain: files, addresses, traces, names of exception classes.
LEAKS = re.compile(
    rb"""/(?:usr|home|root|tmp|work|var)/|\.py\b|0x[0-9a-f]{6,}|Traceback|\b[A-Z][a-z]\w+(?:Error|Exception)\b"""
)

Faults = Mapping[int, BaseException | ErrorRecord]


def write_entry(folder: Path) -> Path:
    """The text files of a model whose tokens are bytes, and a few control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "manifest.json").write_bytes(msgspec.json.encode(base_manifest()))
    return folder


def base_manifest(**changes: Any) -> BaseManifest:
    """What the base of the tests says of itself: two linears that adapters may change."""
    fields: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "name": MODEL,
        "source": "tiny",
        "source_fingerprint": "f" * 64,
        "weights_fingerprint": FINGERPRINT,
        "quant": "int4",
        "layout": "compact",
        "architecture": "llama",
        "context_length": CONTEXT,
        "vocab_size": 258,
        "eos_token_ids": (257,),
        "parameters": 1,
        "weight_bytes": 1,
        "template_hash": "",
        "files": {},
        "created": 0,
        "linears": dict.fromkeys(("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"), (8, 8)),
    }
    return BaseManifest(**fields | changes)


@dataclass
class ScriptedEngine:
    """Stands for EngineClient where a test must choose what the engine says and when it fails; no process, no model.

    Every sequence gets `answer`, byte by byte, cut at its `max_tokens`. Before token k it raises or reports
    `faults[k]`, and waits for `gates[k]`. `refusal` is raised at submission.
    """

    text: ModelText
    entry: Path
    answer: str = "Hello, world"
    answers: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=dict)
    gates: Mapping[int, asyncio.Event] = field(default_factory=dict)
    refusal: BaseException | None = None
    chunk: int = 1
    cached_tokens: int = 0
    state: str = "new"
    loading: Loading | None = None
    failure: ErrorRecord | None = None
    stats: EngineStats = field(default_factory=EngineStats)
    restarts: int = 0
    blocks: int = 1024
    context: int = CONTEXT
    submitted: list[tuple[list[int], SamplingParams]] = field(default_factory=list)
    salts: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    waiting: int = 0
    load: asyncio.Event | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    adapters: dict[str, Path] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    pinned: set[str] = field(default_factory=set)
    uses: list[tuple[AdapterUse, ...]] = field(default_factory=list)
    load_gate: asyncio.Event | None = None
    load_fault: BaseException | None = None
    pin_fault: BaseException | None = None

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    @property
    def info(self) -> EngineInfo | None:
        return engine_info(self.entry, self.text.vocab_size, self.blocks, self.context) if self.state != "new" else None

    async def start(self) -> None:
        self.state = "starting" if self.load else "ready"

    async def wait_ready(self) -> EngineInfo:
        if self.load is not None:
            await self.load.wait()
            self.state = "ready"
        return engine_info(self.entry, self.text.vocab_size, self.blocks, self.context)

    async def close(self) -> None:
        self.state = "closed"

    async def _wait_at(self, gate: asyncio.Event) -> None:
        self.waiting += 1
        async with self.changed:
            self.changed.notify_all()
        try:
            await gate.wait()
        finally:
            self.waiting -= 1

    async def until_waiting(self, count: int) -> None:
        """Waits until `count` sequences stand at gates."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.waiting >= count)

    async def until_open(self, count: int) -> None:
        """Waits until `count` sequences run."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.open) >= count)

    def add_adapter(self, ref: AdapterRef, folder: Path) -> None:
        self.adapters[ref.digest] = folder

    async def load_adapter(self, digest: str) -> AdapterLoaded:
        if digest not in self.adapters:
            raise ModelNotFound("the adapter is not known")
        if self.load_gate is not None:
            await self._wait_at(self.load_gate)
        if self.load_fault is not None:
            raise self.load_fault
        assert (self.adapters[digest] / "adapter_model.safetensors").is_file()
        self.loads.append(digest)
        return AdapterLoaded(digest=digest, bytes=1)

    def pin_adapter(self, digest: str, pinned: bool) -> None:
        if pinned and self.pin_fault is not None:
            raise self.pin_fault
        (self.pinned.add if pinned else self.pinned.discard)(digest)

    def remove_adapter(self, digest: str) -> None:
        del self.adapters[digest]
        self.removed.append(digest)
        self.pinned.discard(digest)

    def generate(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        sequence: str,
        salt: str = "",
        adapters: tuple[AdapterUse, ...] = (),
    ) -> AsyncIterator[SequenceOutput]:
        if self.refusal is not None:
            raise self.refusal
        assert sequence not in self.sequences
        for use in adapters:
            assert use.digest in self.adapters, "the engine was never told of this adapter, or told to forget it"
        self.uses.append(adapters)
        self.submitted.append((prompt, params))
        self.salts.append(salt)
        self.sequences.append(sequence)
        answer = self.answers[len(self.sequences) - 1] if self.answers else self.answer
        return self._outputs(prompt, params, sequence, self.text.encode(answer))

    async def _outputs(
        self, prompt: list[int], params: SamplingParams, sequence: str, tokens: list[int]
    ) -> AsyncIterator[SequenceOutput]:
        self.open.add(sequence)
        async with self.changed:
            self.changed.notify_all()
        finish = "length" if len(tokens) > params.max_tokens else "stop"
        if not params.stop_token_ids:
            finish = "length"
        tokens = tokens[: params.max_tokens]
        common: dict[str, Any] = {
            "sequence": sequence,
            "prompt_tokens": len(prompt),
            "cached_tokens": self.cached_tokens,
        }
        prompt_scores = None
        if params.prompt_logprobs is not None:
            prompt_scores = [None, *(score(token, params.prompt_logprobs) for token in prompt[1:])]
        done = False
        try:
            for step in range(0, max(len(tokens), 1), self.chunk):
                if step in self.gates:
                    await self._wait_at(self.gates[step])
                fault = self.faults.get(step)
                if isinstance(fault, ErrorRecord):
                    yield SequenceOutput(error=fault, **common)
                elif fault is not None:
                    raise fault
                piece = tokens[step : step + self.chunk]
                yield SequenceOutput(
                    tokens=piece,
                    logprobs=None if params.logprobs is None else [score(token, params.logprobs) for token in piece],
                    prompt_logprobs=prompt_scores if step == 0 else None,
                    **common,
                )
                await asyncio.sleep(0)
            done = True
            yield SequenceOutput(
                finish=finish,
                stop_token=params.stop_token_ids[0] if finish == "stop" else None,
                logprobs=None if params.logprobs is None else [],
                embedding=scripted_mean(prompt) if params.pooled else None,
                **common,
            )
        finally:
            self.open.discard(sequence)
            if not done:
                self.aborted.append(sequence)


def scripted_mean(prompt: list[int]) -> bytes:
    """What stands for the mean of hidden states: a vector that tells prompts apart."""
    return struct.pack(f"<{HIDDEN}f", len(prompt), sum(prompt), prompt[0], -prompt[-1])


def score(token: int, rivals: int) -> TokenLogprob:
    """A made-up log-probability that tells tokens apart."""
    return TokenLogprob(token, -token / 100, [(token + index, -token / 100 - index) for index in range(rivals)])


def engine_info(entry: Path, vocab_size: int, blocks: int, context: int) -> EngineInfo:
    return EngineInfo(
        model=MODEL,
        entry=str(entry),
        source_fingerprint="f" * 64,
        weights_fingerprint=FINGERPRINT,
        quant="int4",
        architecture="llama",
        forward="compact",
        device="cpu",
        kernels="torch",
        context_length=context,
        vocab_size=vocab_size,
        block_size=16,
        blocks=blocks,
        weight_bytes=1,
        cache_bytes=1,
        hidden_size=HIDDEN,
    )


@dataclass
class Answer:
    """What an ASGI application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Scope = dict[str, Any]


def make_scope(
    method: str, path: str, headers: Mapping[str, str] | list[tuple[bytes, bytes]] | None = None, **changes: Any
) -> Scope:
    pairs = headers if isinstance(headers, list) else [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
    if not isinstance(headers, list) and "host" not in (headers or {}):
        pairs = [(b"host", b"localhost"), *pairs]
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": pairs,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    return scope | changes


async def call(
    app: Any,
    scope: Scope,
    body: bytes | list[bytes] = b"",
    *,
    leave: asyncio.Event | None = None,
    on_send: Callable[[Any], Awaitable[None]] | None = None,
) -> Answer:
    """Calls `app` once. The client leaves when `leave` is set; `on_send` sees every message and may be slow."""
    chunks = [body] if isinstance(body, bytes) else list(body)
    answer = Answer()
    done = asyncio.Event()

    async def receive() -> Any:
        if chunks:
            chunk = chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
        waits = [asyncio.create_task(event.wait()) for event in (leave, done) if event is not None]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if on_send is not None:
            await on_send(message)
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            if not message.get("more_body", False):
                answer.complete = True
                done.set()

    await app(scope, receive, send)
    return answer


def events_of(body: bytes | str) -> list[Any]:
    """The `data:` events of a stream, decoded; the end mark stays a string."""
    text = body.decode() if isinstance(body, bytes) else body
    events = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            assert len(lines) == 1
            assert lines[0].startswith("data: ")
            data = lines[0].removeprefix("data: ")
            events.append(data if data == "[DONE]" else json.loads(data))
    return events


def chat(content: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}]} | fields


def completion(prompt: Any = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, **fields}
