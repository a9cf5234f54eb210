"""The messages between gateway and engine: tagged structs, so that the protocol is found by grepping their names."""

from __future__ import annotations

import msgspec

from .errors import ErrorRecord
from .sampling import SamplingParams


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Generate from `prompt`. `adapter` is a digest ("" is the base); `salt` parts the prefix caches of tenants."""

    sequence: str
    prompt: list[int]
    params: SamplingParams
    adapter: str = ""
    salt: str = ""


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop this sequence and free what it holds; no more output comes for it. Unknown ids are ignored."""

    sequence: str


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Leave at once; the gateway has drained already."""


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How far the engine's start is. `fraction` is 0 to 1, or None while it is unknown."""

    stage: str
    fraction: float | None = None


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine serves, constant from ready to death. `entry` is the folder of the prepared base."""

    model: str
    entry: str
    source_fingerprint: str
    weights_fingerprint: str
    quant: str
    architecture: str
    forward: str
    device: str
    kernels: str
    context_length: int
    vocab_size: int
    block_size: int
    blocks: int
    weight_bytes: int
    cache_bytes: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The engine takes requests from now on."""

    info: EngineInfo


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """The log-probability of the token chosen (or given, in a prompt), and the best alternatives, best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]] = []


class SequenceOutput(msgspec.Struct, frozen=True, kw_only=True):
    """News of one sequence. The output with a `finish` or an `error` is its last one.

    `finish` is "stop" (a stop token, which is not among `tokens`) or "length". `prompt_tokens` and `cached_tokens` are
    set on every output. `prompt_logprobs` come once, with the first output: one entry a prompt
    token, None for the first.
    """

    sequence: str
    tokens: list[int] = []
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None
    finish: str | None = None
    stop_token: int | None = None
    error: ErrorRecord | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0


class StepOutputs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All news of one engine step."""

    outputs: list[SequenceOutput]


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges and counters of the engine. Counters only grow while the engine lives; times are seconds."""

    running: int = 0
    waiting: int = 0
    blocks_total: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    aborted: int = 0
    busy_seconds: float = 0.0
    resident_bytes: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Sent by the step loop itself, at least once a second when idle and between steps when busy."""

    stats: EngineStats


class Fatal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why the engine is about to exit."""

    error: ErrorRecord


ToEngine = Submit | Abort | Shutdown
FromEngine = Loading | Ready | StepOutputs | Heartbeat | Fatal
