"""Paths, folders, patterns and weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.contract.errors import ConfigError, InvalidData
from tunechat.trainer.data.files.sources import Source, read_sources
from tunechat.trainer.data.sample import Place


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.jsonl", "a.csv", "sub/c.txt.gz", ".hidden.jsonl", ".git/d.jsonl", "picture.png", "old.xls"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(texts: list[str]) -> list[tuple[str, float]]:
    return [(str(source.path), source.weight) for source in read_sources(texts)]


def test_folders_have_the_files_below_them(folder: Path) -> None:
    assert names(["."]) == [("a.csv", 1), ("b.jsonl", 1), ("sub/c.txt.gz", 1)]


def test_patterns_and_weights(folder: Path) -> None:
    assert names(["*.jsonl=2", "**/*.gz=0.5"]) == [("b.jsonl", 2), ("sub/c.txt.gz", 0.5)]


def test_each_file_once_with_its_first_weight(folder: Path) -> None:
    assert names(["b.jsonl=3", "*"])[:2] == [("b.jsonl", 3), ("a.csv", 1)]


def test_a_name_with_an_equals_sign_is_a_name(folder: Path) -> None:
    (folder / "lr=2.jsonl").touch()
    (folder / "x=2").touch()
    assert names(["lr=2.jsonl", "x=2"]) == [("lr=2.jsonl", 1), ("x=2", 1)]


@pytest.mark.parametrize("text", ["b.jsonl=0", "b.jsonl=-1", "b.jsonl=nan", "b.jsonl=inf", "b.jsonl=1e9"])
def test_weights_are_bounded(folder: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"weight of b\.jsonl"):
        read_sources([text])


def test_patterns_that_fit_nothing_are_an_error(folder: Path) -> None:
    with pytest.raises(InvalidData, match=r"\*\.parquet: no file"):
        read_sources(["*.parquet"])


def test_weights_take_samples_as_often_as_they_say() -> None:
    source = Source(Path("a"), 2.25)
    times = [source.times(Place("a", line)) for line in range(4000)]
    assert set(times) == {2, 3}
    assert 2.2 < sum(times) / 4000 < 2.3
    assert times == [source.times(Place("a", line)) for line in range(4000)]
    assert times != [source.times(Place("a", line), seed=1) for line in range(4000)]
    assert {Source(Path("a")).times(Place("a", line)) for line in range(99)} == {1}
