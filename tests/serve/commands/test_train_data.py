"""The files that a training is sent with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.commands.train_data import Origins, parcels
from tunechat.serve.contract.errors import ConfigError, InvalidData
from tunechat.tests.trainer.data.writing import write_lines
from tunechat.trainer.data.sample import Place
from tunechat.trainer.recipe import Recipe


def chat(answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]}


def answers(path: Path) -> list[str]:
    return [json.loads(line)["messages"][-1]["content"] for line in path.read_text().splitlines()]


def test_one_file_goes_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "faq.csv"
    data.write_text("question,answer\nq,a\n")
    other = write_lines(tmp_path / "v.jsonl", [chat("x")])
    with parcels(Recipe(data=str(data), validation=str(other))) as sent:
        assert not sent.are_joined and sent.training.path == data and sent.training.name == "faq.csv"
        assert sent.validation is not None and sent.validation.path == other
        assert sent.told("faq.csv:2: wrong") == "faq.csv:2: wrong"


def test_several_become_one_of_openais_form_with_the_weights(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", [chat("a1"), chat("a2")])
    second = tmp_path / "b.csv"
    second.write_text("question,answer\nq,b1\nq,b2\n")
    with parcels(Recipe(data=(f"{first}=2", str(second)))) as sent:
        assert sent.are_joined and sent.validation is None
        assert answers(sent.training.path) == ["a1", "a1", "a2", "a2", "b1", "b2"]
        folder = sent.training.path.parent
        said = "training.jsonl:3: x; training.jsonl:6: y; training.jsonl:7: z; validation.jsonl:1"
        assert sent.told(said) == f"{first}:2: x; {second}:3: y; training.jsonl:7: z; validation.jsonl:1"
    assert not folder.exists()


def test_validation_is_joined_when_the_data_is_so_that_both_read_alike(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.csv").write_text(f"Q,A\nq,{name}\n")
    held = tmp_path / "v.csv"
    held.write_text("Q,A\nq,v\n")
    with parcels(Recipe(data=str(folder), validation=str(held), question="Q", answer="A")) as sent:
        assert sent.validation is not None
        assert answers(sent.training.path) == ["a", "b"] and answers(sent.validation.path) == ["v"]
        assert sent.told("validation.jsonl:1: x") == f"{held}:2: x"


def test_part_of_a_file_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "a.jsonl", [chat(str(number)) for number in range(200)])
    seen = []
    for seed in (1, 1, 2):
        with parcels(Recipe(data=f"{data}=0.5", seed=seed)) as sent:
            seen.append(answers(sent.training.path))
    assert seen[0] == seen[1] != seen[2] and 50 < len(seen[0]) < 150


def test_what_cannot_be_read_is_told_by_its_place(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "a.jsonl", [chat("a")])
    bad = write_lines(tmp_path / "b.jsonl", [chat("b"), chat("c"), {"messages": 1}])
    with pytest.raises(InvalidData, match=r"b\.jsonl:3"), parcels(Recipe(data=(str(good), str(bad)))):
        pass
    for name in ("missing.jsonl", "empty", "*.parquet"):
        with pytest.raises(InvalidData, match=r"no such file|no file that can be read"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            with parcels(Recipe(data=str(tmp_path / name))):
                pass
    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"x": 1}\n')
    with pytest.raises(InvalidData, match="the format is not known"), parcels(Recipe(data=str(strange))):
        pass


def test_kinds_of_samples_are_not_joined(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "a.jsonl", [chat("a")])
    text = tmp_path / "b.txt"
    text.write_text("Once upon a time.")
    with (
        pytest.raises(ConfigError, match=r"a\.jsonl:1 has a conversation and .*b\.txt:1 plain text"),
        parcels(Recipe(data=(str(good), str(text)))),
    ):
        pass


def test_origins_know_every_line() -> None:
    origins = Origins()
    for number in range(1, 1001):
        origins.add(Place("ab"[number % 2], 10 * number))
    assert origins.told("t:1, t:1000, t:1001, xt:1, t:0, t:01", "t") == "b:10, a:10000, t:1001, xt:1, t:0, t:01"
