"""Adapters while no server runs: what the commands do with the store in the home folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..adapters.adapter import Limits
from ..adapters.quarantine import Quarantine
from ..adapters.staging import Intake
from ..adapters.store import AdapterStore
from ..contract.adapters import AdapterManifest
from ..contract.errors import InvalidRequest, NotFound, Unavailable
from ..settings import Settings
from .adapter_archive import unpack
from .adapter_json import JsonObject, adapter_json, quarantined_json, version_json
from .prepared import prepared_manifest

FOLDER = "adapters"


class StoreAdapters:
    """The adapters of a home folder. What is changed here is served from the next start on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = AdapterStore(settings.home / FOLDER)

    def listing(self) -> JsonObject:
        held = Quarantine(self._store.root).all()
        return {
            "object": "list",
            "data": [adapter_json(stored) for stored in self._store.all()],
            "quarantined": [quarantined_json(one) for one in held],
        }

    def show(self, text: str) -> JsonObject:
        """A version, or a name and its versions. Raises ModelNotFound."""
        return self._told(self._store.show(text)) if "@" in text else adapter_json(self._store.of(text))

    def load(self, name: str, path: Path, *, activate: bool) -> JsonObject:
        """Takes a PEFT folder or a zip of one into the store. Raises what is wrong with it."""
        limits = Limits()
        intake = Intake(prepared_manifest(self._settings), limits)
        with unpacked(path, limits.max_bytes) as folder:
            return self._told(self._store.publish(name, folder, intake, activate=activate))

    def unload(self, text: str) -> JsonObject:
        raise Unavailable(
            f"no server runs at {self._settings.server_url}, so {text} is not loaded; `remove` deletes it from disk"
        )

    def rollback(self, name: str) -> JsonObject:
        return self._told(self._store.rollback(name))

    def activate(self, text: str) -> JsonObject:
        if "@" not in text:
            raise InvalidRequest(f"name the version that is to be current, {text}@1 say")
        return self._told(self._store.activate(text))

    def pin(self, text: str, pinned: bool) -> JsonObject:
        return self._told(self._store.pin(text, pinned))

    def verify(self, text: str) -> JsonObject:
        return {**self._told(self._store.verify(text)), "verified": True}

    def remove(self, text: str) -> JsonObject:
        gone = [version.ref.id for version in self._store.remove(text)]
        return {"object": "adapter.deleted", "id": text, "deleted": True, "removed": gone}

    @contextmanager
    def files(self, text: str) -> Iterator[tuple[AdapterManifest, Path]]:
        """The version that `text` means and the folder of its files, unchanged since they were stored."""
        version = self._store.verify(text)
        yield version, self._store.folder(version)

    def _told(self, version: AdapterManifest) -> JsonObject:
        return version_json(version, self._store.of(version.name))


@contextmanager
def unpacked(path: Path, max_bytes: int) -> Iterator[Path]:
    """The folder `path`, or one with the content of the zip `path` for as long as the block runs."""
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise NotFound(f"there is no {path}; give a PEFT folder or a zip of one")
    with tempfile.TemporaryDirectory(prefix="tunechat-") as temporary:
        folder = Path(temporary)
        unpack(path, folder, max_bytes)
        yield folder
