from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.tools.builtin.index import MAX_PASSAGE, DocumentIndex, passages_of, words_of
from tunechat.tools.builtin.search import make, search
from tunechat.tools.errors import ToolFailed


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    (folder / "deep").mkdir(parents=True)
    (folder / "cats.md").write_text("# Cats\n\nCats sleep most of the day.\n")
    (folder / "deep" / "dogs.txt").write_text("Dogs bark at the postman.\n")
    (folder / "中文.md").write_text("适配器共享同一个基础模型。\n")
    (folder / "picture.png").write_bytes(b"cats")
    (folder / ".hidden.md").write_text("cats")
    return folder


@pytest.fixture
def index(documents: Path, tmp_path: Path) -> DocumentIndex:
    return DocumentIndex(documents, tmp_path / "home")


def paths(index: DocumentIndex, question: str) -> list[str]:
    return [passage.path for passage in index.search(question)]


def test_finds_words_whatever_their_case(index: DocumentIndex) -> None:
    assert paths(index, "CATS") == ["cats.md"]
    assert paths(index, "the postman")[0] == "deep/dogs.txt"
    assert paths(index, "zebra") == []
    assert index.search("sleep")[0].line == 1


def test_finds_chinese_words(index: DocumentIndex) -> None:
    assert paths(index, "基础模型") == ["中文.md"]


def test_sees_new_changed_and_deleted_files(index: DocumentIndex, documents: Path) -> None:
    assert paths(index, "zebra") == []
    (documents / "new.md").write_text("A zebra.")
    assert paths(index, "zebra") == ["new.md"]
    (documents / "new.md").write_text("A very different animal.")
    assert paths(index, "zebra") == []
    (documents / "cats.md").unlink()
    assert paths(index, "cats") == []


@pytest.mark.parametrize(
    "question", ['"', "cats OR", "cats NEAR dogs", "text:cats", "cats*", "-cats", "(cats", "cats'; DROP"]
)
def test_no_question_is_read_as_a_query_language(index: DocumentIndex, question: str) -> None:
    try:
        found = paths(index, question)
    except ToolFailed:
        return
    assert set(found) <= {"cats.md", "deep/dogs.txt"}
    assert paths(index, "cats") == ["cats.md"]


def test_a_broken_index_is_made_again(index: DocumentIndex, tmp_path: Path) -> None:
    index.search("cats")
    [file] = (tmp_path / "home" / "search").glob("*.db")
    file.write_bytes(b"garbage" * 1000)
    with pytest.raises(ToolFailed, match="made again"):
        index.search("cats")
    assert paths(index, "cats") == ["cats.md"]


def test_may_be_asked_from_several_threads(index: DocumentIndex) -> None:
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(paths(index, "cats"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["cats.md"]] * 4


@given(st.text(alphabet="ab \n中", max_size=4000))
def test_passages_hold_every_word_in_bounded_pieces(text: str) -> None:
    pieces = list(passages_of(text))
    assert all(0 < len(piece) <= MAX_PASSAGE + MAX_PASSAGE for _, piece in pieces)
    assert "".join("".join(piece.split()) for _, piece in pieces) == "".join(text.split())
    lines = text.splitlines()
    for number, piece in pieces:
        assert lines[number - 1].strip() and piece.split()[0][:1] in lines[number - 1]


def test_words() -> None:
    assert words_of("What's a_b 模型 x?") == ["What", "s", "a", "b", "模", "型", "x"]


async def test_the_tool(index: DocumentIndex) -> None:
    assert await make(index).ainvoke({"query": "cats"}) == "cats.md:1\n# Cats\n\nCats sleep most of the day."
    assert search(index, "zebra") == "[nothing found]"
    with pytest.raises(ToolFailed, match="no words"):
        search(index, "?!")
