"""The log of a process: below its size, with the end in it, and printable where it is quoted."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunechat.serve.jobs.log import CappedLog


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_it_stays_below_its_size_and_ends_as_what_was_written(tmp_path: Path, writes: list[bytes]) -> None:
    for path in tmp_path.glob("log*"):
        path.unlink()
    log = CappedLog(tmp_path / "log", 200)
    for data in writes:
        log.write(data)
    log.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "log.1", tmp_path / "log") if path.exists())
    assert len(kept) <= 200
    assert b"".join(writes).endswith(kept[-100:])


def test_it_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = CappedLog(tmp_path / "log")
        log.write(text)
        log.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_last_lines_are_printable_and_bounded(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "log")
    log.write(b"x" * 50_000 + b"\n\n\x1b[31mred\xff\n  \n")
    log.write("größer\n".encode())
    log.close()
    assert log.last_lines(2) == [" [31mred\ufffd", "größer"]
    assert [len(line) for line in log.last_lines(9, longest=10)] == [10, 9, 6]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "no such folder" / "log")
    log.write(b"still quoted\n")
    log.close()
    assert log.last_lines() == ["still quoted"]
