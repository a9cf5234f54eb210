"""The text of a turn taken apart as it comes: text, reasoning and calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from .call_reader import CallReader
from .events import CallArguments, CallEnd, CallStart, TextDelta, TurnEvent
from .form import Form
from .marker import MarkerSearch
from .named_reader import NamedReader
from .reasoning import Reasoning, ReasoningReader

_SPACE = " \t\n\r"
_SPACES = re.compile(r"[ \t\n\r]*")


class TurnParser:
    """Feeds on the text of one turn and gives its events. The same text gives the same events, however it is cut.

    White space next to calls and reasoning belongs to them. What is no call after all is text, its marker included, so
    nothing is lost. The work is linear in the length of the text.

    `names` are the tools that may be called (None: any, empty: calls are text). `vouched` says that a grammar holds the
    text: arguments are then passed on as they come, and a call that the end of the text cuts off before its name is
    known is dropped, and so is the beginning of an opener behind which only calls could stand: in any turn behind its
    first call, and with `calls_only` before that; else a call is passed on once it is whole and well-formed. `opened`
    says that the prompt ended inside a reasoning block.
    """

    def __init__(
        self,
        form: Form,
        *,
        names: Collection[str] | None = None,
        vouched: bool = False,
        calls_only: bool = False,
        reasoning: Reasoning | None = None,
        opened: bool = False,
    ) -> None:
        self._form = form
        self._names = names
        self._calls = names is None or len(names) > 0
        self._vouched = vouched
        self._calls_only = calls_only
        self._search = MarkerSearch(form.openers if self._calls else ())
        self._reasoning = ReasoningReader(reasoning, opened=opened) if reasoning else None
        self._step: Callable[[], bool] = self._reason if reasoning else self._begin
        self._events: list[TurnEvent] = []
        self._shown: list[str] = []  # text behind the last event
        self._input = ""  # has come
        self._at = 0  # and is dealt with up to here
        self._space: list[str] = []  # white space that is text only if text follows
        self._drops_space = False  # white space before the next text belongs to markup
        self._raw: list[str] = []  # the markup and call under way, to be given back as text
        self._reader: CallReader | NamedReader = CallReader(None)
        self._listed = False
        self._closable = False  # an opener stands before the block
        self._started = False
        self._index = 0

    def push(self, text: str) -> list[TurnEvent]:
        """The events that are certain after `text`."""
        self._input, self._at = self._input[self._at :] + text, 0
        while self._at < len(self._input) and self._step():
            continue
        return self._take()

    def finish(self) -> list[TurnEvent]:
        """The events that are left, now that no more text comes."""
        rest = self._input[self._at :]
        if self._reasoning is not None and self._step == self._reason:
            found, rest = self._reasoning.finish(rest)
            self._events += found
            self._drops_space = self._reasoning.found
        if self._started:
            self._add(CallEnd(self._index, complete=False))
        elif not self._is_markup():
            self._say("".join(self._raw) + rest)
            if not self._drops_space:
                self._shown += self._space
        self._raw, self._input, self._at, self._space, self._started = [], "", 0, [], False
        self._step = self._text
        return self._take()

    def _is_markup(self) -> bool:
        """Whether what is left can only have been the markup of calls."""
        if self._step == self._after:
            return True
        ends_calls = self._step in (self._open, self._call) or self._calls_only or self._index > 0
        return self._vouched and self._calls and ends_calls

    def _reason(self) -> bool:
        """Before and inside the reasoning block."""
        if self._reasoning is None:
            return False
        found, self._input = self._reasoning.push(self._input[self._at :])
        self._at = 0
        self._events += found
        if not self._reasoning.done:
            return False
        self._drops_space = self._reasoning.found
        self._step = self._begin
        return True

    def _begin(self) -> bool:
        """Where the answer begins, and a call may stand without an opener."""
        if not (self._form.bare and self._calls):
            self._step = self._text
            return True
        space = self._skip_space()
        if not self._drops_space:
            self._space.append(space)
        if not self._next():
            return False
        self._step = self._text
        if self._next() == "{":
            self._enter([])
        return True

    def _text(self) -> bool:
        before, word, self._at = self._search.split(self._input, self._at)
        self._say(before)
        if word:
            self._listed = word.endswith("[")
            self._closable = True
            self._raw = [word]
            self._step = self._open
        return bool(word)

    def _open(self) -> bool:
        """Behind an opener, or behind the comma of a list: before a call."""
        self._raw.append(self._skip_space())
        character = self._next()
        if self._form.infix and character:
            self._enter(self._raw)
        elif character == "[" and not self._listed:
            self._listed = True
            self._raw.append("[")
            self._at += 1
        elif character == "{":
            self._enter(self._raw)
        elif character:
            self._give_back()
        return bool(character)

    def _call(self) -> bool:
        reader, start = self._reader, self._at
        self._at = reader.push(self._input, start)
        if not self._started:
            self._raw.append(self._input[start : self._at])
        if reader.name is not None and (reader.done or (self._vouched and reader.fragments)):
            self._pass_on()
        if reader.failed:
            self._fail()
        elif reader.done:
            self._add(CallEnd(self._index))
            self._index += 1
            self._started = False
            self._raw = []
            self._step = self._after
        return True

    def _after(self) -> bool:
        """Behind a call: the next of a list, a closer, or text."""
        self._skip_space()
        character = self._next()
        if not character:
            return False
        closer = self._form.closer if self._closable else ""
        if self._listed and character == "]":
            self._listed = False
            self._at += 1
        elif (character == "," and self._listed) or (character in ";," and self._form.bare):
            self._raw, self._step = [character], self._open
            self._at += 1
        elif character == "{" and self._form.bare:
            self._enter([])
        elif closer and not self._listed and self._input.startswith(closer, self._at):
            self._at += len(closer)
            self._end_block()
        elif closer and not self._listed and closer.startswith(self._input[self._at : self._at + len(closer)]):
            return False
        else:
            self._end_block()
        return True

    def _skip_space(self) -> str:
        """The white space that comes next, which is passed over."""
        start = self._at
        match = _SPACES.match(self._input, start)
        self._at = match.end() if match else start
        return self._input[start : self._at]

    def _next(self) -> str:
        """The next character, "" where it has not come."""
        return self._input[self._at : self._at + 1]

    def _enter(self, raw: list[str]) -> None:
        self._raw = raw
        infix = self._form.infix
        self._reader = NamedReader(self._names, infix) if infix else CallReader(self._names)
        self._step = self._call

    def _end_block(self) -> None:
        self._listed = self._closable = False
        self._drops_space = True
        self._step = self._text

    def _pass_on(self) -> None:
        """The call as far as it is known."""
        if not self._started:
            self._started = True
            self._space, self._raw = [], []
            self._drops_space = True
            self._add(CallStart(self._index, self._reader.name or ""))
        fragment = "".join(self._reader.fragments)
        self._reader.fragments.clear()
        if fragment:
            self._add(CallArguments(self._index, fragment))

    def _fail(self) -> None:
        """The call went astray: what was announced ends, the rest is text."""
        if self._started:
            self._add(CallEnd(self._index, complete=False))
            self._index += 1
            self._started = False
        self._give_back()

    def _give_back(self) -> None:
        raw, self._raw = "".join(self._raw), []
        self._listed = self._closable = False
        self._step = self._text
        self._say(raw)

    def _say(self, text: str) -> None:
        """Text, save for white space at its end, which may belong to what comes next."""
        if self._drops_space:
            text = text.lstrip(_SPACE)
            self._drops_space = not text
        shown = text.rstrip(_SPACE) if self._calls else text
        if shown:
            self._shown += [*self._space, shown]
            self._space = []
        if len(shown) < len(text):
            self._space.append(text[len(shown) :])

    def _add(self, event: TurnEvent) -> None:
        self._flush()
        self._events.append(event)

    def _flush(self) -> None:
        text, self._shown = "".join(self._shown), []
        if text:
            self._events.append(TextDelta(text))

    def _take(self) -> list[TurnEvent]:
        self._flush()
        events, self._events = self._events, []
        return events
