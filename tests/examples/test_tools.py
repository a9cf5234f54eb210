"""The example of tool calls: what is trained is right, and what is held out is never trained on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "type": "dict",
    "properties": {"side": {"type": "float"}, "unit": {"type": "string"}, "sizes": {"type": "array", "items": {}}},
    "required": ["side"],
}
RIGHT = {"side": [2.5, "two"], "unit": ["cm", "inch", ""], "sizes": [[1, 2], [2, 1]]}


def load(name: str) -> ModuleType:
    """A script of the examples as a module."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", ROOT / "examples" / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


PREPARE, SCORE = load("prepare"), load("score")


def source(folder: Path, simple: int, multiple: int) -> Path:
    """Data in the leaderboard's form. The second category asks questions of the first, and some of its own."""
    (folder / "possible_answer").mkdir(parents=True)
    function = {"name": "area.of", "description": "Finds it.", "parameters": PARAMETERS}
    for category, count in (("simple_python", simple), ("multiple", multiple)):
        rows: list[dict[str, Any]] = []
        for number in range(count):
            asked = f"How large is it? {number}" if category == "simple_python" or number % 2 else f"And now? {number}"
            question = [[{"role": "user", "content": asked}]]
            rows.append({"id": f"{category}_{number}", "question": question, "function": [function]})
        answers = [{"id": row["id"], "ground_truth": [{"area.of": RIGHT}]} for row in rows]
        for name, lines in ((category, rows), (f"possible_answer/{category}", answers)):
            where, _, file = name.rpartition("/")
            (folder / where / f"BFCL_v4_{file}.json").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, Any]], Path]:
    """What `prepare.py` writes: the samples to train on, and the file of the rows that are held out."""
    monkeypatch.setattr(sys, "argv", ["prepare.py", str(source(tmp_path / "data", 40, 30)), str(tmp_path / "out")])
    PREPARE.main()
    lines = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], tmp_path / "out" / "held-out.jsonl"


def test_no_question_is_on_both_sides(files: tuple[list[dict[str, Any]], Path]) -> None:
    samples, held_out = files
    trained = {sample["messages"][0]["content"] for sample in samples}
    tested = {row.messages[-1]["content"] for row in SCORE.read(held_out)}
    assert tested
    assert not trained & tested
    assert len([one for one in trained | tested if one[-1].isdigit()]) == 40 + 15


def test_what_is_trained_is_what_the_leaderboard_takes_for_right(files: tuple[list[dict[str, Any]], Path]) -> None:
    samples, held_out = files
    calls = [call for sample in samples for call in sample["messages"][1].get("tool_calls", ())]
    assert {(call["function"]["name"], call["function"]["arguments"]) for call in calls} == {
        ("area_of", '{"side": 2.5, "sizes": [1, 2]}')
    }
    for sample in samples:
        roles = [message["role"] for message in sample["messages"]]
        assert roles in (["user", "assistant"], ["user", "assistant", "tool", "assistant"])
        if len(roles) == 4:
            assert sample["messages"][2]["tool_call_id"] == sample["messages"][1]["tool_calls"][0]["id"]
    row = SCORE.read(held_out)[0]
    assert SCORE.Answer(row, [("area_of", calls[0]["function"]["arguments"])]).is_right
    assert SCORE.Answer(row, [("area_of", '{"side": "two", "unit": "inch", "sizes": [2, 1]}')]).is_right


@pytest.mark.parametrize(
    "calls", [[], [("area", '{"side": 2.5, "sizes": [1, 2]}')], [("area_of", '{"side": 2')], [("area_of", "[2.5]")]]
)
def test_wrong_calls_are_not_right(files: tuple[list[dict[str, Any]], Path], calls: list[tuple[str, str]]) -> None:
    assert not SCORE.Answer(SCORE.read(files[1])[0], calls).is_right


def test_the_made_up_answer_tells_the_made_up_result(files: tuple[list[dict[str, Any]], Path]) -> None:
    answered = [sample["messages"] for sample in files[0] if len(sample["messages"]) == 4]
    assert len(answered) > 5
    for messages in answered:
        number = messages[3]["content"].split()[-1].rstrip(".")
        assert float(number) >= 0
        assert number in messages[2]["content"]


@given(st.sampled_from(["in cm please", "in inch please", "in any"]))
def test_the_value_that_the_question_has_is_taken(asked: str) -> None:
    value = PREPARE.one_of(["cm", "inch"], {"type": "string"}, asked)
    assert value == ("inch" if "inch" in asked else "cm")
    assert PREPARE.one_of(["two", 2], {"type": "integer"}, "two") == 2


def test_a_row_without_a_call_of_its_schema_is_left_out() -> None:
    row = PREPARE.Row("x_1", "simple", [{"role": "user", "content": "?"}], [], [("f", {"a": ["text"]})])
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}]
    assert PREPARE.right_call(PREPARE.Row(row.id, row.category, row.messages, tools, row.expected)) is None


async def test_models_are_asked_as_clients_ask(files: tuple[list[dict[str, Any]], Path]) -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        if len(asked) == 1:
            return httpx.Response(503, json={"error": {"message": "busy"}})
        function = {"name": "area_of", "arguments": '{"side": 2.5, "sizes": [1, 2]}'}
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": function}]}
        return httpx.Response(200, json={"choices": [{"message": message}], "usage": {"completion_tokens": 7}})

    rows = SCORE.spread(SCORE.read(files[1]), 2)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://a") as client:
        answers = [await SCORE.ask(client, "m", row, 9) for row in rows]
    assert "busy" in answers[0].error
    assert (asked[1]["tool_choice"], asked[1]["temperature"], asked[1]["messages"][-1]["role"]) == ("auto", 0, "user")
    assert SCORE.line("m", answers, 1.0) == ("m", "2", *["50.0 %"] * 4, "7", "1")
