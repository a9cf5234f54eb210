"""Which MCP servers there are: the `mcpServers` object that other programs read too."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...serve.contract.errors import ConfigError

MAX_FILE = 1 << 20
MAX_SERVERS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

Text = Annotated[str, Field(max_length=8192)]


def _web(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("a server's url begins with http:// or https://")
    return url


class ServerConfig(BaseModel):
    """One server: a program that is started (`command`), or one that is reached by streamable HTTP (`url`)."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    command: Annotated[str, Field(max_length=4096)] = ""
    args: Annotated[tuple[Text, ...], Field(max_length=256)] = ()
    env: Annotated[dict[str, Text], Field(max_length=256)] = {}
    cwd: Annotated[str | None, Field(max_length=4096)] = None
    url: Annotated[str, Field(max_length=4096)] = ""
    headers: Annotated[dict[str, Text], Field(max_length=64)] = {}
    transport: Annotated[str, Field(validation_alias=AliasChoices("transport", "type"), max_length=32)] = ""
    disabled: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> ServerConfig:
        if bool(self.command) == bool(self.url):
            raise ValueError("a server has either a command or a url")
        if self.url:
            _web(self.url)
        known = {"", "stdio"} if self.command else {"", "http", "streamable_http", "streamable-http"}
        if self.transport not in known:
            raise ValueError(f"the transport {self.transport!r} is not known; there are stdio and streamable HTTP")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    servers: Annotated[
        dict[Annotated[str, AfterValidator(lambda name: _server_name(name))], ServerConfig],
        Field(validation_alias="mcpServers", max_length=MAX_SERVERS),
    ]


def _server_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a server's name has letters, digits, _ and -, at most 32")
    return name


def read_servers(path: Path, environ: Mapping[str, str] | None = None) -> dict[str, ServerConfig]:
    """The servers of the file that are not disabled, with `${NAME}` and `${NAME:-default}` filled in.

    Raises ConfigError that names the file and the place, never a value: values hold keys.
    """
    environ = os.environ if environ is None else environ
    try:
        if path.stat().st_size > MAX_FILE:
            raise ConfigError(f"{path} is larger than {MAX_FILE} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {str(error)[:200]}") from error
    try:
        found = _File.model_validate(_filled(content, environ, str(path)))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{path}: {where}: {problem['msg'].removeprefix('Value error, ')}") from error
    return {name: server for name, server in found.servers.items() if not server.disabled}


def _filled(value: Any, environ: Mapping[str, str], path: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, environ, path) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, environ, path) for inner in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        found = environ.get(match[1]) or match[2]
        if found is None:
            raise ConfigError(f"{path} needs the environment variable {match[1]}, which is not set")
        return found

    return _VARIABLE.sub(variable, value)
