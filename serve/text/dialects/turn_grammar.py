"""The grammar of one turn: text, reasoning and calls as a dialect writes them, with arguments that match their schemas.

All of it is one text for llguidance (its dialect of Lark). Markers that are special tokens of the model stand in it by
their ids, so that no text can pass for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..grammars.attempt import problem_of
from ..grammars.schema import Schema, read_schema
from ..grammars.structure import Structure, combined, json_rule, quoted
from .brevity import MAX_CALLS as MAX_CALLS_IN_BRIEF
from .brevity import brief
from .form import Form
from .reasoning import Reasoning, Thinking
from .tool import Tool
from .unrolling import unrolled

# A model may go on calling for ever.
MAX_CALLS = 16
# Characters of a schema whose trial is remembered.
MAX_REMEMBERED = 1 << 14

_ANY = "(?s:.*)"
_GAP = r"/[ \n]{0,4}/"


@dataclass(frozen=True, slots=True)
class TurnGrammar:
    """Writes the grammars of a form. `special` maps the tokens that stand in them by their ids.

    `thinking`: the turn may begin with a reasoning block, or goes on in one that the prompt opened. `spells` says that
    the name of a special token is text somewhere in what the turn may be.
    """

    form: Form
    special: Mapping[str, int]
    reasoning: Reasoning | None
    thinking: Thinking
    spells: bool = False

    def plain(self) -> str:
        """Free text, without calls."""
        return self._turn(["answer: TEXT", *self._texts()], first=["first: FIRST"])

    def content(self, content: Structure) -> str:
        """Text of a given shape, without calls."""
        return combined(self._turn([f"answer: {content.expression}"], first=None), content.whole)

    def required(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        """Calls and nothing else."""
        answer = f"answer: {'block' if self.form.bare else 'opened'}"
        return self._turn([answer, *self._calls(tools, parallel)], first=None)

    def auto(self, tools: Sequence[Tool], *, parallel: bool) -> str:
        """Free text, or text and then calls. The turn ends with its last call."""
        opener = self.form.opener
        rules, answers, firsts = [*self._calls(tools, parallel), *self._texts()], ["TEXT"], ["FIRST"]
        if self._is_literal(opener):
            rules += [f"head[lazy]: ANY {quoted(opener)}", self._terminal("ANY")]
            rules += [f"first_head[lazy]: FIRST_ANY {quoted(opener)}", self._terminal("FIRST_ANY", thinks=True)]
            answers.append("head behind")
            firsts.append("first_head behind")
        else:
            answers.append("TEXT opened")
            firsts.append("FIRST opened")
        if self.form.bare:
            rules.append(f"gap: {_GAP}")
            answers.append("gap block")
            firsts.append("block")
        return self._turn([f"answer: {' | '.join(answers)}", *rules], first=[f"first: {' | '.join(firsts)}"])

    def auto_content(self, tools: Sequence[Tool], content: Structure, *, parallel: bool) -> str:
        """Text of a given shape, or calls."""
        rules = ["answer: structured | opened", f"structured: {content.expression}"]
        return combined(self._turn([*rules, *self._calls(tools, parallel)], first=None), content.whole)

    def _turn(self, rules: list[str], first: list[str] | None) -> str:
        """The whole grammar: `answer` is what follows reasoning, `first` what stands where there may be some.

        None: the same as `answer`, which begins with no white space; behind reasoning there may be some.
        """
        if self.reasoning is None or self.thinking == "no":
            return self._lark("start: answer", *rules)
        opener, closer = self.reasoning.opener, self.reasoning.closer
        gap = "" if first else _GAP
        if closer in self.special:
            ending = [
                f"ending: THOUGHTS {self._marks(closer)}",
                f"THOUGHTS: /{_ANY}/ & ~/{_ANY}{_escaped(closer)}{_ANY}/",
            ]
        else:
            ending = [f"ending[lazy]: /{_ANY}{_escaped(closer)}/"]
        if self.thinking == "open":
            return self._lark(f"start: ending {gap} answer", *ending, *rules)
        if opener in self.special or closer in self.special:
            think = [f"think: {self._marks(opener)} ending", *ending]
        else:
            think = [rf"think[lazy]: /\s{{0,8}}{_escaped(opener)}{_ANY}{_escaped(closer)}/"]
        start = "start: think answer | first" if first else f"start: (think {gap})? answer"
        return self._lark(start, *think, *(first or []), *rules)

    def _lark(self, *lines: str) -> str:
        # Where only one text can follow, llguidance offers the tokens that the tokenizer makes of it: a special token
        # for its name, which then does not fit the text. So it must not force where such a name is text.
        return "\n".join(['%llguidance {"no_forcing": true}', *lines] if self.spells else lines)

    def _texts(self) -> list[str]:
        return [self._terminal("TEXT", openers=True), self._terminal("FIRST", openers=True, thinks=True)]

    def _terminal(self, name: str, *, openers: bool = False, thinks: bool = False) -> str:
        """Free text without openers, and without a beginning that means something else."""
        parts = [f"/{_ANY}/"]
        if openers:
            # Those that are special tokens too: the parser sees no difference between a token and its name.
            parts += [f"~/{_ANY}{_escaped(opener)}{_ANY}/" for opener in self.form.openers]
        if self.form.bare:
            parts.append(rf"~/\s*\{{{_ANY}/")
        if thinks and self.reasoning:
            parts.append(rf"~/\s*{_escaped(self.reasoning.opener)}{_ANY}/")
        return f"{name}: {' & '.join(parts)}"

    def _calls(self, tools: Sequence[Tool], parallel: bool) -> list[str]:
        """`opened`: all calls of a turn with their markers; `behind`: the same without the first opener; `block`: calls
        of one block."""
        form = self.form
        behind = f"{self._marks(form.lead)} block {self._marks(form.tail + form.closer)}"
        if form.listed:
            bracket = "" if form.opener.endswith("[") else quoted("[")
            block = f"{bracket} {self._several('call', ', ', parallel)} {quoted(']')}"
        elif form.bare:
            block = self._several("call", form.between, parallel)
        else:
            block = "call"
            behind = self._several(behind, form.between + form.opener, parallel)
        rules = [f"opened: {self._marks(form.opener)} behind", f"behind: {behind}"]
        rules += [f"block: {block}", f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}"]
        for index, tool in enumerate(tools):
            foot = self._marks(form.foot)
            rules.append(f"call_{index}: {self._marks(form.head(tool.name))} arguments_{index} {foot}")
            rules.append(f"arguments_{index}: {arguments_rule(tool, is_brief=form.brief)}")
        return rules

    def _several(self, expression: str, between: str, parallel: bool) -> str:
        """`expression`, and again behind `between` as often as a turn may call."""
        more = f" ({self._marks(between)} {expression}){{0,{most_calls(self.form) - 1}}}" if parallel else ""
        return expression + more

    def _is_literal(self, opener: str) -> bool:
        """Whether the opener begins as text does, not with a special token."""
        return not any(opener.startswith(name) for name in self.special)

    def _marks(self, text: str) -> str:
        """`text` as an expression, with special tokens by their ids."""
        if not text:
            return ""
        names = sorted((name for name in self.special if name and name in text), key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
        return " ".join(f"<[{self.special[piece]}]>" if piece in names else quoted(piece) for piece in pieces if piece)


def most_calls(form: Form) -> int:
    """How many calls a turn has at most."""
    return MAX_CALLS_IN_BRIEF if form.brief else MAX_CALLS


def arguments_rule(tool: Tool, *, is_brief: bool = False) -> str:
    """The expression for the arguments of a tool; with `is_brief`, what its schema leaves open gets a size, and what
    holds itself an end.

    Raises InvalidRequest where its schema is wrong, and, for a strict tool, where it cannot be enforced.
    """
    lenient = not tool.strict
    schema = read_schema(tool.parameters, f"{tool.path}.parameters", lenient=lenient)
    if isinstance(schema, dict) and schema.get("properties") == {} and "additionalProperties" not in schema:
        schema = {**schema, "additionalProperties": False}
    rule = json_rule(schema)
    for shorter in _shorter(schema, rule) if is_brief else ():
        sized = json_rule(shorter)
        if _compiles(sized):
            return sized
    if not lenient or _compiles(rule):
        return rule
    return json_rule(brief({"type": "object"}) if is_brief else {"type": "object"})


def _shorter(schema: Schema, rule: str) -> Iterator[Schema]:
    """Schemas every text of which is valid for `schema`, whose own expression is `rule`: those of least first."""
    # Copies of cases that overlap may not overlap any more, and then allow what both of them took.
    if '"oneOf"' not in rule or _compiles(rule):
        ended = unrolled(schema)
        if ended is not schema:
            yield brief(ended)
    yield brief(schema)


def _compiles(rule: str) -> bool:
    return _remembered(rule) if len(rule) <= MAX_REMEMBERED else _tried(rule)


def _tried(rule: str) -> bool:
    return not problem_of(f"start: {rule}")


@lru_cache(maxsize=256)
def _remembered(rule: str) -> bool:
    return _tried(rule)


def _escaped(text: str) -> str:
    """`text` inside a regular expression of Lark."""
    return re.sub(r"([\\\\.\[\]{}()|*+?^$/])", r"\\\1", text)
