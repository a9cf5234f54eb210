"""What is asked of a model at one moment of its training, and how each answer is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...jobs.job import Job

# Enough of a prompt to know it by, in the one line that people read.
_SHOWN = 80
_ANSWER_TOKENS = 128

At = Literal["start", "checkpoint", "end"]
# A job, what happened in words, and its data, empty where there is none.
Note = Callable[[Job, str, dict[str, Any]], Awaitable[None]]
# What was told about at which moment: the prompt, or None for the calls of tools.
Mark = tuple[str, int, str | None]


@dataclass(frozen=True, slots=True)
class Round:
    """The questions of one moment. `model` is the name by which requests ask for the weights."""

    job: Job
    at: At
    step: int
    model: str
    prompts: tuple[str, ...]
    answer_tokens: int
    template: Mapping[str, Any]
    probes: Path | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @staticmethod
    def of(job: Job, at: At, step: int, model: str, recipe: Mapping[str, Any], probes: Path | None) -> Round:
        """`recipe` is a whole one, or the keys that were given."""
        prompts = recipe.get("prompts") or ()
        thinking = recipe.get("thinking")
        return Round(
            job,
            at,
            step,
            model,
            (prompts,) if isinstance(prompts, str) else tuple(dict.fromkeys(map(str, prompts))),
            int(recipe.get("answer_tokens") or _ANSWER_TOKENS),
            {} if thinking is None else {"enable_thinking": bool(thinking)},
            probes,
        )

    def mark(self, prompt: str | None) -> Mark:
        return self.at, self.step, prompt

    def request(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`fields` as a request for this round's weights."""
        kwargs = {"chat_template_kwargs": dict(self.template)} if self.template else {}
        return {"model": self.model, **fields, **kwargs}

    def question(self, prompt: str) -> dict[str, Any]:
        """A chat request with nothing but `prompt`, answered greedily."""
        return self.request(
            {
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0,
                "max_tokens": self.answer_tokens,
            }
        )

    def data(self, model: str, **more: Any) -> dict[str, Any]:
        """The data of an event of this round."""
        return {"step": self.step, "at": self.at, "model": model, **more}


def marks_of(events: list[dict[str, Any]]) -> set[Mark]:
    """What the data of a job's events says was told."""
    return {
        (event["at"], event["step"], event.get("prompt"))
        for event in events
        if "at" in event and "step" in event and ("prompt" in event or "call_or_not" in event)
    }


def shown(prompt: str) -> str:
    """A prompt as one short line."""
    line = " ".join(prompt.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def figures_text(figures: Mapping[str, float | int | None]) -> str:
    """The score of tool calls in a line."""

    def part(key: str) -> str:
        value = figures[key]
        return "none to judge" if value is None else f"{value:.0%}"

    return (
        f"call or not {part('call_or_not')}, names {part('name')}, arguments {part('arguments')}, "
        f"valid JSON {part('valid_json')}, invented tools {part('invented')}, of {figures['rows']} rows"
    )
