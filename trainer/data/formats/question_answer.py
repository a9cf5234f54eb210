"""A question and an answer, in columns that are guessed by their names or named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..record import Record
from ..sample import Conversation
from .alpaca import add_history
from .form import fields_of, text_at
from .turns import Turns

# In the order in which they are preferred.
_QUESTIONS = ("question", "query", "prompt", "instruction", "ask", "user", "human", "input", "q", "问题", "提问", "问")
_ANSWERS = (
    "answer",
    "response",
    "completion",
    "reply",
    "output",
    "assistant",
    "target",
    "a",
    "答案",
    "回答",
    "回复",
    "答",
)
_SYSTEMS = ("system", "system_prompt", "系统")


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """Tables of questions and answers. Columns that are not named are guessed; case and blanks do not count."""

    question: str | None = None
    answer: str | None = None
    name: str = "question-answer"
    about: str = '{"question", "answer"}, and what these columns are called elsewhere'

    def recognises(self, value: Mapping[str, Any]) -> int:
        return int(bool(self._column(value, self.question, _QUESTIONS) and self._column(value, self.answer, _ANSWERS)))

    def read(self, record: Record) -> Conversation:
        value = fields_of(record)
        question = self._column(value, self.question, _QUESTIONS)
        answer = self._column(value, self.answer, _ANSWERS)
        if question is None or answer is None:
            named = self.question if question is None else self.answer
            what = f"there is no column {named!r}" if named else "no column is known as that of questions and answers"
            columns = ", ".join(map(str, list(value)[:20]))
            mend = f"name them, --question COLUMN --answer COLUMN, out of: {columns}"
            raise record.error(what, mend, kind="format")
        system = self._column(value, None, _SYSTEMS)
        turns = Turns(record, text_at(record, value.get(system), system) if system else "")
        add_history(turns, value.get("history"))
        turns.say("user", text_at(record, value[question], question))
        turns.say("assistant", text_at(record, value[answer], answer))
        return turns.conversation()

    def _column(self, value: Mapping[str, Any], named: str | None, guesses: Iterable[str]) -> str | None:
        known = {_plain(name): name for name in value}
        wanted = [_plain(named)] if named is not None else guesses
        return next((known[name] for name in wanted if name in known), None)


def _plain(name: str) -> str:
    return " ".join(name.lower().split())
