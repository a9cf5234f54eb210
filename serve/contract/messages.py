"""The messages between gateway and engine: tagged structs, so that the protocol is found by grepping their names."""

from __future__ import annotations

import msgspec

from .adapters import AdapterRef
from .errors import ErrorRecord
from .sampling import SamplingParams


class AdapterUse(msgspec.Struct, frozen=True, array_like=True, order=True):
    """An adapter that a request uses: its digest, and what its delta is multiplied with."""

    digest: str
    weight: float = 1.0


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Generate from `prompt`, with the deltas of all `adapters` added to the base; none is the base alone.

    Every digest is known from an AddAdapter and stands once. `salt` parts the prefix caches of tenants.
    """

    sequence: str
    prompt: list[int]
    params: SamplingParams
    adapters: tuple[AdapterUse, ...] = ()
    salt: str = ""


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop this sequence and free what it holds; no more output comes for it. Unknown ids are ignored."""

    sequence: str


class AddAdapter(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Requests may use this adapter from now on. `folder` holds the version's files; nothing is read yet."""

    ref: AdapterRef
    folder: str


class LoadAdapter(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Read an adapter that was added and make it ready. AdapterLoaded or AdapterFailed answers."""

    digest: str


class PinAdapter(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Keep an adapter on the device once it is there, or let it go again."""

    digest: str
    pinned: bool


class RemoveAdapter(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """No new request uses this adapter: free what it holds once the sequences that use it have ended."""

    digest: str


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Leave at once; the gateway has drained already."""


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How far the engine's start is. `fraction` is 0 to 1, or None while it is unknown."""

    stage: str
    fraction: float | None = None


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine serves, constant from ready to death. `entry` is the folder of the prepared base.

    `adapter_slots` adapters can be in one batch, of ranks up to `max_adapter_rank`; `adapter_bytes` bounds those that
    are kept in memory. `hidden_size` is the number of an embedding's dimensions.
    """

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
    adapter_slots: int = 0
    adapter_bytes: int = 0
    max_adapter_rank: int = 0
    hidden_size: int = 0


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

    `finish` is "stop" (a stop token, which is not among `tokens`, or a grammar that is complete) or "length".
    `prompt_tokens` and `cached_tokens` are set on every output. `prompt_logprobs` come once, with the first output: one
    entry a prompt token, None for the first. `embedding` comes with the last output of a pooled sequence: the mean of
    the hidden states of all prompt tokens after the last norm, float32 little-endian [hidden_size].
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
    embedding: bytes | None = None


class StepOutputs(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All news of one engine step."""

    outputs: list[SequenceOutput]


class AdapterResidency(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that is in memory. `slot` is its place on the device, None while it is only in host memory.

    `running` and `waiting` count the sequences that use it.
    """

    digest: str
    bytes: int
    slot: int | None = None
    pinned: bool = False
    running: int = 0
    waiting: int = 0


class AdapterMoves(msgspec.Struct, frozen=True, array_like=True):
    """How often an adapter was read from disk, and how often it had to leave memory for others."""

    digest: str
    loads: int
    evictions: int


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges and counters of the engine. Counters only grow while the engine lives; times are seconds.

    `adapters` are those in memory; one that was added and is not among them is on disk. `adapter_moves` are
    those that were read before; `adapter_loads` and `adapter_evictions` are the sums of all, of removed ones too, and
    `adapter_installs` counts moves into a slot.
    `grammars_refused` and `grammars_reused` count sequences whose grammar could not be used, or was compiled already;
    `running_grammars` those that run with one. `late_masks` counts tokens that had to wait for their grammar's mask
    beyond their step.
    """

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
    adapters: list[AdapterResidency] = []
    adapter_moves: list[AdapterMoves] = []
    adapter_loads: int = 0
    adapter_installs: int = 0
    adapter_evictions: int = 0
    grammars_compiled: int = 0
    grammars_refused: int = 0
    grammars_reused: int = 0
    grammar_compile_seconds: float = 0.0
    running_grammars: int = 0
    late_masks: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Sent by the step loop itself, at least once a second when idle and between steps when busy."""

    stats: EngineStats


class AdapterLoaded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The adapter is in memory and checked; `bytes` is what it takes there."""

    digest: str
    bytes: int


class AdapterFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The adapter cannot be used, and why. Nothing that is served has changed."""

    digest: str
    error: ErrorRecord


class Fatal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why the engine is about to exit."""

    error: ErrorRecord


ToEngine = Submit | Abort | AddAdapter | LoadAdapter | PinAdapter | RemoveAdapter | Shutdown
FromEngine = Loading | Ready | StepOutputs | Heartbeat | AdapterLoaded | AdapterFailed | Fatal
