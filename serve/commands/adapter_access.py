"""Where a command finds adapters: with the server that runs, or in the home folder while none does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..contract.errors import ConfigError
from ..settings import Settings
from .output import progress

if TYPE_CHECKING:
    from ..contract.adapters import AdapterManifest


class Adapters(Protocol):
    """What both a server and a store do; answers have the shape of the server's."""

    def listing(self) -> dict[str, Any]: ...
    def show(self, text: str) -> dict[str, Any]: ...
    def load(self, name: str, path: Path, *, activate: bool) -> dict[str, Any]: ...
    def unload(self, text: str) -> dict[str, Any]: ...
    def rollback(self, name: str) -> dict[str, Any]: ...
    def activate(self, text: str) -> dict[str, Any]: ...
    def pin(self, text: str, pinned: bool) -> dict[str, Any]: ...
    def verify(self, text: str) -> dict[str, Any]: ...
    def remove(self, text: str) -> dict[str, Any]: ...
    def files(self, text: str) -> AbstractContextManager[tuple[AdapterManifest, Path]]: ...


@contextmanager
def reached(settings: Settings, *, is_ready: bool = False) -> Iterator[Adapters]:
    """The adapters of the server that the settings name, or of the home folder while none answers there.

    `is_ready` waits for a server that is starting. Raises ConfigError when there is neither, and Unavailable when a URL
    was given and nothing answers there.
    """
    from .server import Server

    with Server.admin_of(settings) as server:
        if settings.url or server.answers():
            from .adapter_server import ServerAdapters
            from .asking import await_ready

            if is_ready:
                with progress() as report:
                    await_ready(server, settings.start_timeout, report)
            yield ServerAdapters(server)
            return
    from .adapter_store import StoreAdapters

    if not settings.home.is_dir():
        raise ConfigError(f"no server answers at {settings.server_url}, and there is no home folder {settings.home}")
    yield StoreAdapters(settings)
