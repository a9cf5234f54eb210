"""Adapters of a running server: what the commands ask of its routes, so that it takes effect at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ..adapters.adapter import CONFIG, WEIGHTS, Limits, require_files
from ..adapters.digest import sha256_of
from ..adapters.names import check_name, parse_id
from ..adapters.origin import MANIFEST
from ..contract.adapters import ADAPTER_FORMAT, AdapterManifest
from ..contract.errors import InvalidAdapter, Unavailable
from .adapter_archive import unpacked
from .server import Server

_ROOT = "/v1/adapters"
JsonObject = dict[str, Any]


class ServerAdapters:
    """The adapters of `server`. Every method raises the error that the server answers with."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def listing(self) -> JsonObject:
        return self._object("GET", _ROOT)

    def show(self, text: str) -> JsonObject:
        return self._object("GET", _path(text))

    def load(self, name: str, path: Path, *, activate: bool) -> JsonObject:
        """Sends a PEFT folder or a zip of one, which the server checks, stores and serves."""
        check_name(name)
        with unpacked(path, Limits().max_bytes) as folder:
            require_files(folder)
            files = {file: folder / file for file in (CONFIG, WEIGHTS, MANIFEST) if (folder / file).is_file()}
            answer = self._server.upload(f"{_path(name)}{'' if activate else '?activate=false'}", files)
        return _checked(answer)

    def unload(self, text: str) -> JsonObject:
        return self._object("POST", f"{_path(text)}/unload")

    def rollback(self, name: str) -> JsonObject:
        return self._object("POST", f"{_path(name)}/rollback")

    def activate(self, text: str) -> JsonObject:
        return self._object("POST", f"{_path(text)}/activate")

    def pin(self, text: str, pinned: bool) -> JsonObject:
        return self._object("POST", f"{_path(text)}/{'pin' if pinned else 'unpin'}")

    def verify(self, text: str) -> JsonObject:
        return self._object("POST", f"{_path(text)}/verify")

    def remove(self, text: str) -> JsonObject:
        return self._object("DELETE", _path(text))

    @contextmanager
    def files(self, text: str) -> Iterator[tuple[AdapterManifest, Path]]:
        """The version that `text` means and a folder of its files, downloaded and compared with their hashes."""
        with tempfile.TemporaryDirectory(prefix="tunechat-") as temporary:
            archive = Path(temporary) / "adapter.zip"
            version = self._version(text)
            self._server.download(f"{_path(version.ref.id)}/download", archive)
            with unpacked(archive, Limits().max_bytes) as folder:
                archive.unlink()
                for name in (CONFIG, WEIGHTS):
                    if not (folder / name).is_file() or sha256_of(folder / name) != version.files.get(name):
                        raise InvalidAdapter(f"{name} of {version.ref.id} did not arrive as it is stored; try again")
                yield version, folder

    def _version(self, text: str) -> AdapterManifest:
        told = self.show(text)
        if told.get("object") == "adapter":
            current = [version for version in told.get("versions", ()) if version.get("is_current")]
            if not current:
                raise InvalidAdapter(f"{text} has no current version; name one, {text}@1 say")
            told = current[0]
        try:
            return msgspec.convert({**told, "format": ADAPTER_FORMAT}, AdapterManifest)
        except msgspec.ValidationError as error:
            raise Unavailable(f"the server does not say what {text} is: {error}") from error

    def _object(self, method: str, path: str) -> JsonObject:
        return _checked(self._server.ask(method, path))


def _path(text: str) -> str:
    """The route of a name or a version. Raises InvalidRequest for what is neither, so that no other route is asked."""
    parse_id(text)
    return f"{_ROOT}/{text}"


def _checked(answer: Any) -> JsonObject:
    if not isinstance(answer, dict):
        raise Unavailable("the server's answer is no JSON object; is it a tunechat server?")
    return answer
