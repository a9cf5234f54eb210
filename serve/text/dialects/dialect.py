"""How one model writes tools, calls, results and reasoning: the one object that serving and training share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..grammars.structure import Structure
from ..markup import Markup, Own
from .family import Family, Message, Messages
from .form import Form
from .history import written
from .parser import TurnParser
from .reasoning import Reasoning, Thinking
from .tool import Call, Tool, ToolChoice
from .turn_grammar import TurnGrammar

AUTO = ToolChoice()


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """The dialect of a model; `choose_dialect` makes it.

    `special` maps the tokens that grammars know by their ids to these (`ModelText.grammar_tokens`). `native` says that
    the template itself writes tools. `reasoning` is None where the model's template knows no reasoning blocks.
    `system_role`: it takes a system message.
    """

    family: Family
    form: Form
    special: Mapping[str, int]
    native: bool = False
    reasoning: Reasoning | None = None
    system_role: bool = True

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def visible_special_tokens(self) -> frozenset[int]:
        """Ids of tokens that the parser must see as text, special or not: the markers of calls and reasoning."""
        marks = [*self.form.openers, self.form.closer, self.form.infix]
        if self.reasoning:
            marks += [self.reasoning.opener, self.reasoning.closer]
        return frozenset(id_ for token, id_ in self.special.items() if any(token in mark for mark in marks))

    def prepare(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), choice: ToolChoice = AUTO
    ) -> tuple[Messages, list[dict[str, Any]] | None]:
        """Messages and tools for `ModelText.encode_chat`, with tools, calls and results as this model reads them.

        Raises InvalidRequest for calls of earlier turns that are no calls.
        """
        return self.family.prepare(messages, tools, choice, self)

    def render(self, text: str, calls: Sequence[Call] = (), *, reasoning: str = "") -> Markup:
        """A whole turn as the model writes it; what is trained and what `parser` reads back."""
        block = self.reasoning.render(reasoning) if self.reasoning else ""
        return Markup(Own(block), written(self.form, text, calls))

    def thinking(self, prompt: str) -> Thinking:
        """Whether a turn after `prompt` (its end is enough) may begin with reasoning, or goes on in it."""
        return self.reasoning.after(prompt) if self.reasoning else "no"

    def grammar(
        self,
        tools: Sequence[Tool] = (),
        choice: ToolChoice = AUTO,
        *,
        parallel: bool = True,
        content: Structure | None = None,
        thinking: Thinking = "no",
    ) -> str:
        """The llguidance grammar of a turn, "" where it may be anything.

        `content` is the shape of the text where no call is made. Raises InvalidRequest for a choice that is not one of
        the tools and for a schema that cannot be used. Takes milliseconds for large schemas: not for an event loop.
        """
        offered = choice.of(tools)
        spells = self._names_tokens([*(tool.name for tool in offered), *(tool.parameters for tool in offered), content])
        grammar = TurnGrammar(self.form, self.special, self.reasoning, thinking, spells)
        if offered and choice.mode == "required":
            return grammar.required(offered, parallel=parallel)
        if offered and content is not None:
            return grammar.auto_content(offered, content, parallel=parallel)
        if offered:
            return grammar.auto(offered, parallel=parallel)
        if content is not None:
            return grammar.content(content)
        return grammar.plain() if tools and not self.form.bare else ""

    def _names_tokens(self, parts: Sequence[Any]) -> bool:
        """Whether the name of a special token stands in the parts of a grammar that are not ours."""
        text = "\n".join(map(str, parts))
        return any(name in text for name in self.special)

    def parser(
        self,
        tools: Sequence[Tool] | None = None,
        choice: ToolChoice = AUTO,
        *,
        vouched: bool = False,
        thinking: Thinking = "no",
    ) -> TurnParser:
        """Reads one turn back. `tools` None: calls of any name. `vouched`: its grammar held the text."""
        names = None if tools is None else frozenset(tool.name for tool in choice.of(tools))
        reads = self.reasoning if thinking != "no" else None
        return TurnParser(
            self.form,
            names=names,
            vouched=vouched,
            calls_only=choice.mode == "required",
            reasoning=reads,
            opened=thinking == "open",
        )
