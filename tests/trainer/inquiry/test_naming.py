"""Paths that become names, wherever they stand."""

from __future__ import annotations

from tunechat.trainer.inquiry.naming import renamed, shortened


def test_paths_become_names_everywhere_and_longer_ones_first() -> None:
    names = {"/h/a": "x.csv", "/h/a.jsonl": 'my "own".jsonl'}
    told = {"file": "/h/a.jsonl", "problems": [{"what": "the same as /h/a.jsonl:3 and /h/a:1", "line": 3}]}
    assert renamed(told, names) == {
        "file": 'my "own".jsonl',
        "problems": [{"what": 'the same as my "own".jsonl:3 and x.csv:1', "line": 3}],
    }


def test_a_name_that_is_a_path_of_another_is_not_replaced_again() -> None:
    assert renamed("/a /b", {"/a": "/b", "/b": "c"}) == "/b c"


def test_long_texts_are_cut() -> None:
    assert shortened({"a": ["x" * 9, 1]}, 5) == {"a": ["xxxx…", 1]}
