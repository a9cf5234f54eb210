"""How what is asked at one moment is written down, and found again in a job's events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.tuning.rounds import Round, marks_of, shown
from tunechat.serve.jobs.job import Job, Status

JOB = Job(id="ftjob-1", tenant="", status=Status.RUNNING, created=0.0, model="tiny", recipe={}, request={})


def round_of(**recipe: Any) -> Round:
    return Round.of(JOB, "checkpoint", 7, "m", recipe, None)


def test_a_recipe_may_have_nothing_but_what_was_given() -> None:
    bare = round_of()
    assert (bare.prompts, bare.answer_tokens, bare.template) == ((), 128, {})
    assert round_of(prompts="one text, with a comma").prompts == ("one text, with a comma",)
    assert round_of(prompts=["a", "b", "a"], answer_tokens=5).prompts == ("a", "b")


@pytest.mark.parametrize(
    ("thinking", "sent"), [(None, {}), (True, {"enable_thinking": True}), (False, {"enable_thinking": False})]
)
def test_thinking_is_sent_where_the_recipe_says_anything(thinking: bool | None, sent: dict[str, bool]) -> None:
    assert round_of(thinking=thinking).question("Hi").get("chat_template_kwargs", {}) == sent


@given(st.lists(st.text(), max_size=4), st.booleans())
def test_what_is_told_is_found_again(prompts: list[str], has_score: bool) -> None:
    asked = round_of(prompts=prompts)
    events: list[dict[str, Any]] = [{"step": 7, "train_loss": 1.0}, {}, {"recipe": {"prompts": prompts}}]
    events += [asked.data("m@1", prompt=prompt, answer="", finish_reason="stop") for prompt in asked.prompts]
    if has_score:
        events.append(asked.data("m@1", call_or_not=None, rows=3))
    marks = {asked.mark(prompt) for prompt in asked.prompts}
    assert marks_of(events) == (marks | {asked.mark(None)} if has_score else marks)


@given(st.text())
def test_prompts_are_shown_in_a_short_line(prompt: str) -> None:
    line = shown(prompt)
    assert len(line) <= 80
    assert len(line.splitlines()) <= 1
    assert line == " ".join(prompt.split()) or (line.endswith("...") and len(prompt) > 80)
