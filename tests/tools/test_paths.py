from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunechat.tools.errors import ToolFailed
from tunechat.tools.paths import Root, clean_path

SECRET = b"outside"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "secret.txt").write_bytes(SECRET)
    folder = tmp_path / "root"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c.txt").write_text("inside")
    (folder / ".env").write_text("KEY=1")
    return Root(folder)


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "a/../../secret.txt", "/etc/passwd", "~/x", "a/\0", ".env", "a/.git/x", "..", "a/..", "x" * 2000],
)
def test_paths_that_lead_out_are_refused(root: Root, path: str) -> None:
    with pytest.raises(ToolFailed):
        root.read(path, 100)
    with pytest.raises(ToolFailed):
        root.listed(path, 10)


def test_a_path_has_few_parts() -> None:
    with pytest.raises(ValueError, match="parts"):
        clean_path("/".join("a" * 40))


Parts = st.sampled_from(["a", "b", "c.txt", "..", ".", "", "...", ".x", "~", "é", "a b", "\\..", "%2e%2e"])


@example("./~")
@given(st.lists(Parts, max_size=8).map("/".join))
def test_a_clean_path_stays_below_and_is_the_only_way_to_write_it(text: str) -> None:
    try:
        clean = clean_path(text)
    except ValueError:
        return
    assert clean_path(clean) == clean
    resolved = os.path.normpath(os.path.join("/base", clean))
    assert resolved == "/base" or resolved.startswith("/base/")
    assert resolved == os.path.normpath(os.path.join("/base", text))


def test_reads_what_is_below(root: Root) -> None:
    assert root.read("a/b/c.txt", 100) == b"inside"
    assert root.read("./a//b/c.txt", 3) == b"ins"
    assert [entry.path for entry in root.walked()] == ["a/b/c.txt"]


def test_links_are_not_followed(root: Root, tmp_path: Path) -> None:
    (root.folder / "file").symlink_to(tmp_path / "secret.txt")
    (root.folder / "folder").symlink_to(tmp_path)
    (root.folder / "within").symlink_to("a")
    for path in ("file", "folder/secret.txt", "within/b/c.txt"):
        with pytest.raises(ToolFailed):
            root.read(path, 100)
    assert [entry.path for entry in root.listed("", 10)] == ["a"]
    assert [entry.path for entry in root.walked()] == ["a/b/c.txt"]


def test_what_is_no_ordinary_file_is_refused_at_once(root: Root) -> None:
    os.mkfifo(root.folder / "pipe")
    for path in ("pipe", "a", ""):
        with pytest.raises(ToolFailed):
            root.read(path, 100)
    with pytest.raises(ToolFailed):
        Root(Path("/dev")).read("zero", 100)
    assert all(entry.path != "pipe" for entry in root.listed("", 10))


def test_a_huge_file_is_read_up_to_the_limit(root: Root) -> None:
    with open(root.folder / "huge", "wb") as file:
        file.truncate(10 << 30)
    assert root.read("huge", 1000) == bytes(1000)


def test_a_link_swapped_in_meanwhile_never_leads_out(root: Root, tmp_path: Path) -> None:
    """Somebody exchanges a folder and a link to the outside as fast as they can."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.txt").write_bytes(SECRET)
    inside = root.folder / "swap"
    inside.mkdir()
    (inside / "x.txt").write_bytes(b"inside")
    link = root.folder / "link"
    link.symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        spare = root.folder / "spare"
        while not stop.is_set():
            os.rename(inside, spare)
            os.rename(link, inside)
            os.rename(inside, link)
            os.rename(spare, inside)

    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[bytes] = set()
    tries, deadline = 0, time.monotonic() + 30
    try:
        # Two threads may fall into step and meet only the link, so the count alone does not end it.
        while tries < 2000 or (not seen and time.monotonic() < deadline):
            tries += 1
            try:
                seen.add(root.read("swap/x.txt", 100))
            except ToolFailed:
                time.sleep(0.0001 * (tries % 3))
    finally:
        stop.set()
        thread.join()
    assert seen == {b"inside"}


def test_a_folder_with_many_entries_is_listed_in_part(root: Root) -> None:
    for number in range(50):
        (root.folder / f"f{number:02}").touch()
    assert len(root.listed("", 10)) == 10
    assert len(list(root.walked(most=20))) <= 20
