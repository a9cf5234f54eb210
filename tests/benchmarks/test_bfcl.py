"""Rows of the leaderboard are read as clients would send them, and only right calls are right."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tunechat.benchmarks.bfcl import CATEGORIES, Row, is_right, read_rows


def question(number: int) -> dict[str, Any]:
    """A row as the leaderboard writes it; the content is our own."""
    properties = {
        "side": {"type": "float", "description": "Its length."},
        "size": {"type": "tuple", "items": {"type": "any"}},
        "where": {"type": "dict", "properties": {"x": {"type": "integer"}}},
    }
    parameters = {"type": "dict", "properties": properties, "required": ["side"]}
    return {
        "id": f"row_{number}",
        "question": [[{"role": "user", "content": f"How large is it? {number}"}]],
        "function": [{"name": "area.of", "parameters": parameters}],
    }


@pytest.fixture(params=["wheel", "folder"])
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    texts = {}
    for category in CATEGORIES:
        rows = [question(number) for number in range(10)]
        answers = [{"id": row["id"], "ground_truth": [{"area.of": {"side": [2.0, "two"]}}]} for row in rows]
        texts[f"BFCL_v4_{category}.json"] = "\n".join(map(json.dumps, rows))
        texts[f"possible_answer/BFCL_v4_{category}.json"] = "\n".join(map(json.dumps, answers))
    if request.param == "wheel":
        with zipfile.ZipFile(tmp_path / "data.whl", "w") as wheel:
            for name, text in texts.items():
                wheel.writestr(f"bfcl_eval/data/{name}", text)
        return tmp_path / "data.whl"
    (tmp_path / "possible_answer").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_rows_become_tools_of_json_schema(source: Path) -> None:
    rows = read_rows(source, 8)
    assert [row.category for row in rows] == ["simple_python"] * 3 + ["multiple"] * 3 + ["parallel"] * 2
    assert [row.id for row in rows[:3]] == ["row_0", "row_3", "row_6"]
    assert rows[0].schemas == {
        "area_of": {
            "type": "object",
            "properties": {
                "side": {"type": "number", "description": "Its length."},
                "size": {"type": "array", "items": {}},
                "where": {"type": "object", "properties": {"x": {"type": "integer"}}},
            },
            "required": ["side"],
        }
    }
    assert rows[0].expected == [("area_of", {"side": [2.0, "two"]})]


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.whl").write_bytes(b"no wheel")
    for place in (tmp_path, tmp_path / "data.whl", tmp_path / "nothing"):
        with pytest.raises(SystemExit, match=r"has no|is no wheel"):
            read_rows(place, 3)


RIGHT: dict[str, list[Any]] = {
    "n": [5],
    "unit": ["square metres", ""],
    "flag": [True, ""],
    "list": [[1, 2.5], ""],
    "where": [{"city": ["Paris"], "zip": ["75", ""]}, ""],
}


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"n": 5}, True),
        ({"n": 5.0, "unit": "Square-Metres"}, True),
        ({"n": 5, "flag": True, "list": [1, 2.5], "where": {"city": "paris"}}, True),
        ({"n": 6}, False),
        ({"n": "5"}, False),
        ({"n": True}, False),
        ({}, False),
        ({"n": 5, "other": 1}, False),
        ({"n": 5, "unit": "feet"}, False),
        ({"n": 5, "unit": ""}, True),
        ({"n": 5, "flag": 1}, False),
        ({"n": 5, "list": [1]}, False),
        ({"n": 5, "list": [2.5, 1]}, False),
        ({"n": 5, "where": {"zip": "75"}}, False),
        ({"n": 5, "where": "Paris"}, False),
    ],
)
def test_arguments_are_compared_by_value(arguments: dict[str, Any], right: bool) -> None:
    assert is_right(Row("r", "simple_python", [], [], [("f", RIGHT)]), [("f", arguments)]) is right


def test_empty_arguments_are_right_only_where_there_are_none() -> None:
    optional = Row("r", "simple_python", [], [], [("f", {"unit": ["m", ""]})])
    assert not is_right(optional, [("f", {})])
    assert is_right(Row("r", "simple_python", [], [], [("f", {})]), [("f", {})])


def test_calls_may_come_in_any_order_and_each_counts_once() -> None:
    row = Row("r", "parallel", [], [], [("f", {"n": [1]}), ("f", {"n": [2, 1]}), ("g", {"n": [1]})])
    one, two, other = ("f", {"n": 1}), ("f", {"n": 2}), ("g", {"n": 1})
    assert is_right(row, [other, two, one])
    assert is_right(row, [one, one, other])
    assert not is_right(row, [two, two, other])
    assert not is_right(row, [one, two])
    assert not is_right(row, [one, two, other, other])
    assert not is_right(row, [one, two, ("h", {"n": 1})])
