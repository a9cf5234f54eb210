"""Prompts and completions, as text and as messages."""

from __future__ import annotations

from tunechat.tests.trainer.data.writing import record, said
from tunechat.trainer.data.formats.completion import PromptCompletion


def test_text() -> None:
    value = {"prompt": "q", "completion": "a", "system": "s"}
    assert PromptCompletion().recognises(value)
    assert said(PromptCompletion().read(record(value))) == [("system", "s"), ("user", "q"), ("assistant", "a")]


def test_messages() -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    value = {"prompt": prompt, "completion": [{"role": "assistant", "content": "a"}], "tools": [{"name": "f"}]}
    sample = PromptCompletion().read(record(value))
    assert said(sample) == [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert sample.tools[0]["function"] == {"name": "f"}
    value["completion"] = {"role": "assistant", "content": "b"}
    assert said(PromptCompletion().read(record(value)))[-1] == ("assistant", "b")
