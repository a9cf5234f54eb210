"""At what a training would stop, and at what it would not."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.serve.contract.errors import ConfigError
from tunechat.serve.contract.inquiry import AskCheck, Checked
from tunechat.tests.trainer.inquiry.conftest import Write, chat
from tunechat.trainer.inquiry.checking import check_data

GOOD = chat("who are you?", "Tuna")


def checked(entry: str, path: str, **recipe: Any) -> Checked:
    return check_data(AskCheck(recipe={"data": [path], **recipe}, entry=entry, trains=True))


def test_good_data_stops_nothing(entry: str, write: Write) -> None:
    found = checked(entry, write(GOOD, chat("and you?", "Me?")))
    assert (found.stops, found.stopping) == (None, 0)
    assert found.report["ok"] and found.report["samples"] == 2
    assert found.report["learned_tokens"] == len("Tuna") + len("Me?") + 2


@pytest.mark.parametrize(
    ("record", "where", "words"),
    [
        ('{"messages": [', ":2: ", "no JSON"),
        ({"messages": [{"role": "king", "content": "x"}]}, ":2: messages[0].role", "king"),
        ({"messages": "no"}, ":2: messages", "messages"),
        (chat("a" * 600, "b"), ":2: messages[1]", "512"),
        (chat("a", "b", weight=-1), ":2: ", "weight"),
    ],
)
def test_what_the_trainer_would_stop_at_is_named(entry: str, write: Write, record: Any, where: str, words: str) -> None:
    path = write(GOOD, record, record, *[chat(f"{number}", "x") for number in range(3)])
    found = checked(entry, path)
    assert found.stops is not None
    assert found.stops.message.startswith(path + where) and words in found.stops.message
    assert (found.where, found.stopping) == ("data", 2)


def test_what_it_would_learn_all_the_same_is_told_and_stops_nothing(entry: str, write: Write) -> None:
    path = write(GOOD, chat("what now?", ""), GOOD)
    found = checked(entry, path)
    assert found.stops is None
    assert found.report["by_kind"] == {"duplicate": 1, "empty_answer": 1}


def test_a_problem_of_its_own_does_not_hide_that_a_sample_is_too_long(entry: str, write: Write) -> None:
    record = {"messages": [*chat("x", "")["messages"], *chat("a" * 600, "b")["messages"]]}
    found = checked(entry, write(GOOD, record))
    assert found.stops is not None and "messages[3]" in found.stops.message
    assert found.report["by_kind"] == {"empty_answer": 1}


def test_long_samples_may_be_left_out_but_not_all(entry: str, write: Write) -> None:
    long = chat("a" * 600, "b")
    assert checked(entry, write(GOOD, long), too_long="drop").stops is None
    found = checked(entry, write(long), too_long="drop")
    assert found.stops is not None and "nothing to learn" in found.stops.message and "512" in found.stops.message


def test_nothing_to_learn_stops(entry: str, write: Write) -> None:
    found = checked(entry, write(chat("a", "b", weight=0)))
    assert found.stops is not None and "nothing to learn" in found.stops.message


def test_validation_has_its_own_place_and_may_overlap(entry: str, write: Write) -> None:
    data = write(GOOD, chat("b", "c"))
    shared = checked(entry, data, validation=[write(GOOD, name="held.jsonl")])
    assert shared.stops is None and shared.report["by_kind"] == {"overlap": 1}
    broken = checked(entry, data, validation=[write("no", name="held.jsonl")])
    assert broken.stops is not None and (broken.where, "held.jsonl:1" in broken.stops.message) == ("validation", True)
    silent = checked(entry, data, validation=[write(chat("x", "y", weight=0), name="held.jsonl")])
    assert silent.stops is not None and silent.where == "validation"


def test_a_training_is_held_to_what_the_trainer_does(entry: str, write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(entry, write(GOOD), codec="nf4", method="lora")
    assert caught.value.param is None and "method=lora" in caught.value.message
    with pytest.raises(ConfigError) as caught:
        checked(entry, write(GOOD), distributed="zero2", processes=2, method="lora")
    assert caught.value.param in ("distributed", "method")


def test_a_look_asks_for_no_training_and_no_length(entry: str, write: Write) -> None:
    path = write(chat("a" * 600, "b"))
    assert check_data(AskCheck(recipe={"data": path}, entry=entry)).stops is None
    assert check_data(AskCheck(recipe={"data": path}, entry="")).report["tokens"] is None
    assert check_data(AskCheck(recipe={"data": path, "max_length": 64}, entry=entry)).stops is not None


def test_texts_in_the_report_are_bounded(entry: str, write: Write) -> None:
    found = checked(entry, write(GOOD, {"x" * 100_000: 1, "messages": [{"role": "r" * 100_000}]}))
    assert max(len(str(value)) for problem in found.report["problems"] for value in problem.values()) <= 500
    assert found.stops is not None and len(found.stops.message) <= 2_000


def test_a_text_is_data_too(entry: str) -> None:
    found = check_data(AskCheck(text='\n{"prompt": "a", "completion": "b"}\nno\n', entry=entry))
    assert found.report["files"][0]["format"] == "prompt-completion"
    assert found.stops is not None and found.stops.message.startswith("text.jsonl:3: ")
