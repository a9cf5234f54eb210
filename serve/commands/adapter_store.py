"""Adapters while no server runs: what the commands do with the store in the home folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..adapters.adapter import Limits
from ..adapters.quarantine import Quarantine
from ..adapters.staging import Intake
from ..adapters.store import AdapterStore
from ..api.adapter_records import Look, adapter_record, quarantined_record, version_record
from ..contract.adapters import AdapterManifest
from ..contract.errors import InvalidRequest, Unavailable
from ..settings import Settings
from .adapter_archive import unpacked
from .prepared import prepared_manifest

FOLDER = "adapters"
JsonObject = dict[str, Any]
_UNLOADED = Look({}, {}, {})


class StoreAdapters:
    """The adapters of a home folder. What is changed here is served from the next start on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = AdapterStore(settings.home / FOLDER)

    def listing(self) -> JsonObject:
        held = Quarantine(self._store.root).all()
        return {
            "object": "list",
            "data": [adapter_record(stored, _UNLOADED) for stored in self._store.all()],
            "quarantined": [quarantined_record(one) for one in held],
        }

    def show(self, text: str) -> JsonObject:
        """A version, or a name and its versions. Raises ModelNotFound."""
        return self._told(self._store.show(text)) if "@" in text else adapter_record(self._store.of(text), _UNLOADED)

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
        return version_record(version, self._store.of(version.name), _UNLOADED)
