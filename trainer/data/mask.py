"""Conversations as rows of which exactly the tokens that the server would have sampled are learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...serve.contract.errors import InvalidRequest, InvalidSample
from ...serve.text.dialects import Dialect, Tool, read_tools
from ...serve.text.model_text import ModelText
from .answers import Answer
from .prompts import Prompts, for_template
from .row import Row
from .sample import Conversation
from .target import find_target

MAX_WEIGHT = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class AnswerMask:
    """Makes rows of conversations for one model.

    `last_turn_only`: of the answers of a conversation, only the last one is learned. `template_kwargs` are the template
    arguments of the requests that the adapter will see.
    """

    text: ModelText
    dialect: Dialect
    last_turn_only: bool = False
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, sample: Conversation) -> list[Row]:
        """The rows of a conversation, as a rule one; none where nothing in it is to be learned.

        Answers share a row as long as the prompt of the next one begins with all that was read and said before. Where
        the template changes earlier turns (drops their reasoning, say), a new row begins, with the prompt that the
        server would give. Raises InvalidSample, with the place and field, for a sample that cannot be learned from.
        """
        at = "messages"
        try:
            prompts = Prompts(self.text, self.dialect, self.template_kwargs)
            tools = read_tools(sample.tools)
            messages = [for_template(message, f"messages[{n}]") for n, message in enumerate(sample.messages)]
            rows: list[_Growing] = []
            for index, weight in self._learned(sample.messages):
                at = f"messages[{index}]"
                answer = self._answer(sample, messages, index, tools)
                prompt = prompts.prompt(messages[:index], tools)
                target = find_target(prompts, prompt, messages[: index + 1], tools, answer)
                if not rows or not rows[-1].goes_on_in(prompt.tokens):
                    rows.append(_Growing())
                rows[-1].add(prompt.tokens, target, weight)
        except InvalidRequest as error:
            field_ = error.param or at
            raise InvalidSample(f"{sample.place}: {field_}: {error.message}", param=field_) from error
        return [row.finished() for row in rows]

    def _learned(self, messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
        """Number and weight of the messages that are learned."""
        learned = [
            (index, weight)
            for index, message in enumerate(messages)
            if message.get("role") == "assistant" and (weight := _weight(message, index)) > 0
        ]
        return learned[-1:] if self.last_turn_only else learned

    def _answer(
        self, sample: Conversation, messages: Sequence[Mapping[str, Any]], index: int, tools: Sequence[Tool]
    ) -> Answer:
        """What the message says. Raises InvalidRequest for what the server would never let the model say."""
        if index == 0:
            raise InvalidRequest(
                "An answer needs a message before it. Put one there, or give this one `weight` 0.", param="messages[0]"
            )
        answer = Answer.of(messages[index], index)
        path = f"messages[{index}].tool_calls"
        if answer.reasoning and self.dialect.reasoning is None:
            raise InvalidRequest(
                "It has reasoning, for which this model's chat template has no place. Take it out, or write it into "
                "the content.",
                param=f"messages[{index}].reasoning_content",
            )
        known = {tool.name for tool in tools}
        unknown = next((call.name for call in answer.calls if known and call.name not in known), None)
        if unknown is not None:
            raise InvalidRequest(f"It calls {unknown!r}, which is not among the tools of the sample.", param=path)
        if len(answer.calls) > 1 and not sample.parallel_tool_calls:
            raise InvalidRequest("It makes several calls although parallel_tool_calls is false.", param=path)
        return answer


@dataclass(slots=True)
class _Growing:
    """A row to which answers are added."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def goes_on_in(self, prompt: list[int]) -> bool:
        return prompt[: len(self.tokens)] == self.tokens

    def add(self, prompt: list[int], target: list[int], weight: float) -> None:
        self.tokens = [*prompt, *target]
        self.weights += [0.0] * (len(prompt) - len(self.weights)) + [weight] * len(target)

    def finished(self) -> Row:
        weights = np.array(self.weights, dtype=np.float32)
        weights[:1] = 0
        return Row(np.array(self.tokens, dtype=np.int32), weights, (len(self.tokens),))


def _weight(message: Mapping[str, Any], index: int) -> float:
    weight = message.get("weight")
    if weight is None:
        return 1.0
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not math.isfinite(weight) or not 0 <= weight <= MAX_WEIGHT:
        raise InvalidRequest(
            f"weight must be a number from 0 to {MAX_WEIGHT:g}; 0 is not learned.", param=f"messages[{index}].weight"
        )
    return float(weight)
