"""Stored adapters: immutable versions under a name, and an alias that says which one the bare name means.

`root/NAME/NUMBER/` is a PEFT folder with a manifest; `root/NAME/alias.json` is the alias. A version appears by one
rename, so it is there whole or not at all, whenever the writer dies.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..contract.adapters import AdapterManifest
from ..contract.base import BaseManifest
from ..contract.errors import Conflict, InvalidAdapter, ModelNotFound, NameTaken, TunechatError, Unavailable
from .adapter import Adapter, Limits
from .alias import Alias, read_alias, write_alias
from .digest import sha256_of
from .durable import TEMPORARY, locked, locked_if_free, sync_folder
from .names import check_name, inside, parse_id
from .opening import open_version, read_version
from .staging import Intake, copy_in, finish

_LOCKS = ".locks"
_LEFT = f"{TEMPORARY}*"

# Whose a name is whose alias cannot be read: nobody's whom a key makes known, so that nothing is shown by accident.
UNKNOWN_OWNER = "?"


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """All that is stored under one name. `versions` are in the order of their numbers.

    `owner` is the tenant whose name it is, "" for everybody's. `labels` are other names of the versions' numbers.
    """

    name: str
    current: int | None
    pinned: frozenset[int]
    versions: tuple[AdapterManifest, ...]
    owner: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)


class AdapterStore:
    """The store in `root`. Any number of processes may use one at a time or at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(
        self, name: str, folder: Path, intake: Intake, *, activate: bool = True, owner: str = "", label: str = ""
    ) -> AdapterManifest:
        """Takes the PEFT folder in as a version of `name`, and moves the alias to it when `activate`.

        The same content again is the version that has it, and so is a `label` that a version has, whatever `folder`
        holds: a writer that died can publish again. A name that has no versions becomes `owner`'s. `folder` is left as
        it is. Raises InvalidRequest for a bad name, NameTaken for another owner's, InvalidAdapter for a bad adapter,
        Unavailable when the disk fails; the versions are then as they were.
        """
        check_name(name)
        with _writing(name):
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep([name])
            with locked(self._lock(name)), self._staged(name) as staged:
                alias = self._owned(name, owner)
                manifest = self._labelled(name, alias.labels.get(label))
                if manifest is None:
                    checked = copy_in(folder, staged, intake)
                    manifest = self._stored(name, checked.digest)
                if manifest is None:
                    number = max([alias.last, *self._numbers(name)]) + 1
                    manifest = finish(staged, name, number, checked)
                    if alias.owner or label:
                        # Before the version is there: no moment may come in which it has no owner, or lacks its label.
                        self._make_home(name)
                        self._change_alias(name, alias.labelled(label, number))
                    self._reveal(staged, name, number)
                alias = alias.labelled(label, manifest.number) if label else alias
                self._change_alias(name, alias.moved(manifest.number) if activate else alias)
        return manifest

    def all(self) -> tuple[StoredAdapter, ...]:
        """Every name that has versions, sorted."""
        found = []
        for name in self._names():
            try:
                stored = self._of(name)
            except TunechatError:  # one damaged alias must not hide the other names; whoever uses this one is told
                stored = StoredAdapter(name, None, frozenset(), self._versions(name), UNKNOWN_OWNER)
            found.append(stored)
        return tuple(stored for stored in found if stored.versions)

    def of(self, name: str) -> StoredAdapter:
        """All versions of `name`. Raises ModelNotFound when there are none."""
        stored = self._of(check_name(name))
        if not stored.versions:
            raise no_adapter(name)
        return stored

    def show(self, text: str) -> AdapterManifest:
        """The version that `text` means: "support@3", or the current one of "support". Raises ModelNotFound."""
        name, number = parse_id(text)
        stored = self.of(name)
        wanted = stored.current if number is None else number
        found = next((version for version in stored.versions if version.number == wanted), None)
        if found is None:
            has = ", ".join(str(version.number) for version in stored.versions)
            raise ModelNotFound(
                f"there is no {text}; {name} has the versions {has}"
                if number
                else f"{name} has no current version; choose one of {has}",
                param="model",
            )
        return found

    def folder(self, version: AdapterManifest) -> Path:
        """Where the version's files are. They never change."""
        return inside(self.root, check_name(version.name), str(version.number))

    def open(self, version: AdapterManifest, base: BaseManifest, limits: Limits | None = None) -> Adapter:
        """The version's numbers, checked anew, for the base that serves now.

        Raises BaseModelMismatch when it was trained on another model, InvalidAdapter when it does not fit the base or
        is not the content that its digest names.
        """
        return open_version(self.folder(version), version, base, limits or Limits())

    def verify(self, text: str) -> AdapterManifest:
        """Hashes the files of a version. Raises InvalidAdapter naming the first that was changed or is gone."""
        version = self.show(text)
        if bad := self._damaged(version):
            raise InvalidAdapter(f"{bad} of {version.ref.id} was changed or is gone; load the adapter again")
        return version

    def activate(self, text: str) -> AdapterManifest:
        """Moves the alias to "support@2"."""
        name, number = parse_id(text)
        with self._changing(name):
            version = self.show(text)
            if number is not None:
                self._change_alias(name, read_alias(self._home(name)).moved(number))
        return version

    def rollback(self, name: str) -> AdapterManifest:
        """Moves the alias back to the version that was current before. Raises Conflict when there was none."""
        with self._changing(check_name(name)):
            alias = read_alias(self._home(name))
            lost = {*alias.history} - {version.number for version in self.of(name).versions}
            history = alias.without(lost).history
            if len(history) < 2:
                raise Conflict(f"{name} was on no other version that is still stored; there is nothing to go back to")
            self._change_alias(name, msgspec.structs.replace(alias, history=history[:-1]))
            return self.show(name)

    def pin(self, text: str, pinned: bool = True) -> AdapterManifest:
        """Keeps a version from being removed, or lets it go again."""
        name, _ = parse_id(text)
        with self._changing(name):
            version = self.show(text)
            alias = read_alias(self._home(name))
            numbers = set(alias.pinned) - {version.number} | ({version.number} if pinned else set())
            self._change_alias(name, msgspec.structs.replace(alias, pinned=tuple(sorted(numbers))))
        return version

    def remove(self, text: str) -> tuple[AdapterManifest, ...]:
        """Removes "support@2", or everything under "support"; returns what is gone. Numbers are not given again.

        Raises Conflict for pinned versions, and for the current one while others are there.
        """
        name, number = parse_id(text)
        with self._changing(name):
            stored = self.of(name)
            gone = stored.versions if number is None else (self.show(text),)
            numbers = {version.number for version in gone}
            if held := sorted(numbers & stored.pinned):
                raise Conflict(f"{name}@{held[0]} is pinned; unpin it first")
            if stored.current in numbers and len(gone) < len(stored.versions):
                raise Conflict(f"{name}@{stored.current} is the current version; roll back or activate another first")
            self._change_alias(name, read_alias(self._home(name)).without(numbers))
            for version in gone:
                self._discard(name, version.number)
        return gone

    def sweep(self) -> None:
        """Removes what writers left behind that died. `publish` does it for its own name."""
        staged = {_staged_for(path) for path in self.root.glob(_LEFT)}
        self._sweep({*self._names(), *filter(_is_name, staged)})

    def _sweep(self, names: Collection[str]) -> None:
        leftovers = [(name, path) for path in self.root.glob(_LEFT) if (name := _staged_for(path)) in names]
        leftovers += [(name, path) for name in names for path in (self.root / name).glob(_LEFT)]
        for name, path in leftovers:
            if path.is_symlink():
                continue
            with locked_if_free(self._lock(name)) as free:
                if free and path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif free:
                    path.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        folders = (path for path in self.root.glob("[A-Za-z0-9]*") if path.is_dir() and not path.is_symlink())
        return sorted(path.name for path in folders if _is_name(path.name))

    def _home(self, name: str) -> Path:
        return inside(self.root, name)

    def _lock(self, name: str) -> Path:
        return self.root / _LOCKS / f"{name}.lock"

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """The lock of a name that must be there."""
        self.of(name)
        with _writing(name), locked(self._lock(name)):
            yield

    @contextmanager
    def _staged(self, name: str) -> Iterator[Path]:
        staged = self.root / f"{TEMPORARY}{name}-{uuid.uuid4().hex}"
        staged.mkdir()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _make_home(self, name: str) -> Path:
        home = self._home(name)
        if not home.exists():
            home.mkdir()
            sync_folder(self.root)
        return home

    def _reveal(self, staged: Path, name: str, number: int) -> None:
        home = self._make_home(name)
        os.rename(staged, home / str(number))
        sync_folder(home)

    def _discard(self, name: str, number: int) -> None:
        with self._staged(name) as staged:
            os.rename(self._home(name) / str(number), staged / str(number))
            sync_folder(self._home(name))

    def _change_alias(self, name: str, alias: Alias) -> None:
        if alias != read_alias(self._home(name)):
            write_alias(self._home(name), alias)

    def _numbers(self, name: str) -> list[int]:
        return sorted(int(path.name) for path in self._home(name).glob("[1-9]*") if path.name.isdecimal())

    def _of(self, name: str) -> StoredAdapter:
        alias = read_alias(self._home(name))
        versions = self._versions(name)
        current = alias.current if any(version.number == alias.current for version in versions) else None
        numbers = {version.number for version in versions}
        labels = {label: number for label, number in alias.labels.items() if number in numbers}
        return StoredAdapter(name, current, frozenset(alias.pinned), versions, alias.owner, labels)

    def _owned(self, name: str, owner: str) -> Alias:
        """The alias of a name under which `owner` may publish. Raises NameTaken."""
        alias = read_alias(self._home(name))
        if alias.owner == owner:
            return alias
        if self._versions(name):
            raise NameTaken(f"the name {name} is taken; choose another", param="name")
        return msgspec.structs.replace(alias, owner=owner)

    def _labelled(self, name: str, number: int | None) -> AdapterManifest | None:
        """Version `number`, when it is there and undamaged."""
        found = None if number is None else read_version(self._home(name) / str(number))
        return found if found is not None and self._damaged(found) is None else None

    def _versions(self, name: str) -> tuple[AdapterManifest, ...]:
        manifests = (read_version(self._home(name) / str(number)) for number in self._numbers(name))
        return tuple(manifest for manifest in manifests if manifest is not None)

    def _stored(self, name: str, digest: str) -> AdapterManifest | None:
        """The newest undamaged version of that content."""
        same = (version for version in reversed(self._of(name).versions) if version.digest == digest)
        return next((version for version in same if self._damaged(version) is None), None)

    def _damaged(self, version: AdapterManifest) -> str | None:
        folder = self.folder(version)
        for file, expected in version.files.items():
            path = folder / Path(file).name
            if path.is_symlink() or not path.is_file() or sha256_of(path) != expected:
                return file
        return None


def no_adapter(name: str) -> ModelNotFound:
    """What is said of a name under which nothing is stored, and of one that the asker may not see."""
    return ModelNotFound(f"there is no adapter {name}", param="model")


def _staged_for(path: Path) -> str:
    return path.name.removeprefix(TEMPORARY).rpartition("-")[0]


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except TunechatError:
        return False
    return True


@contextmanager
def _writing(name: str) -> Iterator[None]:
    """Turns an error of the disk into one of ours."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"adapter {name} cannot be stored: {error.strerror or error}", code="store_failed") from error
