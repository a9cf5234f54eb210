"""What the HTTP side can be told. Built by the command line from the user's settings, and frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

# A request may bring so many prompts times `n`, where the engine's queue holds as many.
MAX_SEQUENCES = 128

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


def is_loopback(host: str) -> bool:
    """Whether `host`, without port or brackets, names this machine only."""
    return host in _LOOPBACK_NAMES or (host.startswith("127.") and host.replace(".", "").isdigit())


class ApiSettings(BaseModel):
    """Every knob of the HTTP side, with its bounds. Times are seconds, sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: str = Field(min_length=1, max_length=256, description="Name of the served model in requests and replies.")
    model_aliases: tuple[str, ...] = Field(
        default=(), max_length=16, description="Other names that requests may use, such as the id it was started with."
    )
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on. 0 takes a free one.")
    api_keys: tuple[str, ...] = Field(default=(), max_length=256, repr=False, description="Keys that clients may send.")
    admin_keys: tuple[str, ...] = Field(
        default=(), max_length=256, repr=False, description="Keys that may also change adapters; if set, no others may."
    )
    tool_dialect: str | None = Field(
        default=None, max_length=64, description="How the model writes tool calls; None: its template decides."
    )
    server_tools: tuple[str, ...] = Field(
        default=(), max_length=256, description="Tools that requests may have the server run, globs included."
    )
    tool_policies: dict[str, tuple[str, ...]] = Field(
        default={}, max_length=256, repr=False, description="Rules on tools by API key, in place of everybody's."
    )
    insecure: bool = Field(default=False, description="Allow a public address without a key.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), max_length=64, description="Host names that requests may carry besides those of this machine."
    )

    max_body_bytes: int = Field(default=4 << 20, ge=1 << 10, le=1 << 30, description="Largest request body.")
    adapter_store: Path | None = Field(default=None, description="Folder of the stored adapters; None serves none.")
    adapter_folder: Path | None = Field(default=None, description="Folder that is watched for adapters.")
    adapter_paths: tuple[Path, ...] = Field(
        default=(), max_length=64, description="Folders below which requests may name adapters by path."
    )
    max_upload_bytes: int = Field(default=2 << 30, ge=1 << 10, le=8 << 30, description="Largest uploaded adapter.")
    upload_timeout: Seconds = Field(default=600.0, description="Longest time that an upload may take to arrive.")

    response_store: Path | None = Field(default=None, description="File of stored responses; None stores none.")
    response_retention: float = Field(
        default=2_592_000.0, ge=0, le=315_360_000, allow_inf_nan=False, description="How long responses are kept."
    )
    max_stored_responses: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Most stored responses of one API key."
    )
    max_stored_bytes: int = Field(
        default=1 << 30, ge=1 << 20, le=1 << 44, description="Most bytes of all stored responses together."
    )

    job_store: Path | None = Field(
        default=None, description="File of jobs and uploaded files, which lie in `files` beside it; None takes none."
    )
    max_file_bytes: int = Field(default=512 << 20, ge=1 << 10, le=8 << 30, description="Largest uploaded file.")

    train_threads: int = Field(
        default=0, ge=0, le=1024, description="Cores that a fine-tuning job may use; 0: all of them."
    )

    max_header_bytes: int = Field(default=32 << 10, ge=1 << 10, le=1 << 20, description="Largest request head.")
    max_headers: int = Field(default=100, ge=16, le=10_000, description="Most header lines of a request.")
    max_connections: int = Field(default=1024, ge=1, le=65_536, description="Most open connections.")
    max_n: int = Field(default=32, ge=1, le=1024, description="Largest `n`.")
    max_sequences: int = Field(
        default=MAX_SEQUENCES, ge=1, le=4096, description="Most sequences of one request: prompts x n."
    )
    max_logprobs: int = Field(default=20, ge=0, le=100, description="Most alternatives reported a token.")
    max_stop_strings: int = Field(default=16, ge=1, le=256, description="Most stop strings of one request.")

    header_timeout: Seconds = Field(default=10.0, description="Longest time that a request's head may take to arrive.")
    body_timeout: Seconds = Field(default=30.0, description="Longest time that a request's body may take to arrive.")
    request_timeout: Seconds = Field(default=600.0, description="Longest life of one generation.")
    send_timeout: Seconds = Field(default=30.0, description="How long a client may leave a chunk unread.")
    heartbeat_seconds: Seconds = Field(default=15.0, description="Pause after which a stream sends a comment line.")
    drain_timeout: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=30.0, description="How long running requests may finish after SIGTERM."
    )

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach the address."""
        return not is_loopback(self.host)

    @property
    def all_keys(self) -> tuple[str, ...]:
        """Every key that opens anything."""
        return (*self.api_keys, *self.admin_keys)

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return not self.api_keys
