"""Who may run what: rules that say ALWAYS, ASK or NEVER for a tool and for patterns of its arguments.

A rule reads `TOOL=PERMISSION` or `TOOL(ARGUMENT=PATTERN)=PERMISSION`, where TOOL and PATTERN are globs:
`calculate=always`, `github_*=ask`, `read_file(path=notes/*)=always`, `*(path=*secret*)=never`.

Order does not matter. A rule about an argument outranks one about a tool, an exact name outranks a glob, and among
equals the stricter one wins. Without any, the tool's own default holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..serve.contract.errors import ConfigError
from .records import Decision, Permission, ToolCall

_RULE = re.compile(
    r"\s*(?P<tool>[A-Za-z0-9_.*?-]{1,128})\s*(?:\(\s*(?P<argument>[A-Za-z0-9_.-]{1,64})\s*=(?P<pattern>.{0,512})\))?\s*=\s*"
    r"(?P<permission>[A-Za-z]+)\s*",
    re.DOTALL,
)
_STRICTNESS = {Permission.ALWAYS: 0, Permission.ASK: 1, Permission.NEVER: 2}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Without `argument` it is about every call of the tool."""

    tool: str
    permission: Permission
    argument: str | None = None
    pattern: str = ""

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule that `text` writes. Raises ConfigError that quotes it."""
        match = _RULE.fullmatch(text)
        permission = match["permission"].lower() if match else ""
        if match is None or permission not in set(Permission):
            raise ConfigError(
                f"{text[:100]!r} is no permission; write TOOL=always, TOOL=ask, TOOL=never or "
                "TOOL(ARGUMENT=PATTERN)=always"
            )
        return cls(match["tool"], Permission(permission), match["argument"], (match["pattern"] or "").strip())

    def __str__(self) -> str:
        about = f"({self.argument}={self.pattern})" if self.argument is not None else ""
        return f"{self.tool}{about}={self.permission}"

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Which of two rules that match wins: the larger one."""
        exact = not any(mark in self.tool for mark in "*?[")
        return self.argument is not None, exact, _STRICTNESS[self.permission]

    def matches(self, name: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the rule is about this call. Of a list, ALWAYS wants every item to match, the others any item."""
        if not fnmatchcase(name, self.tool):
            return False
        if self.argument is None:
            return True
        if self.argument not in arguments:
            return False
        value = arguments[self.argument]
        items = value if isinstance(value, list) else [value]
        found = [fnmatchcase(_text(item), self.pattern) for item in items]
        return bool(found) and all(found) if self.permission is Permission.ALWAYS else any(found)


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules of one user, agent or API key."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Policy:
        """The policy of these rules. Raises ConfigError for one that is none."""
        return cls(tuple(Rule.parse(text) for text in texts))

    def excludes(self, name: str, default: Permission = Permission.ASK) -> bool:
        """Whether no call of the tool can ever run, whatever its arguments."""
        if self.decide(ToolCall("", name), default).permission is not Permission.NEVER:
            return False
        return not any(
            rule.argument is not None and rule.permission is not Permission.NEVER and fnmatchcase(name, rule.tool)
            for rule in self.rules
        )

    def with_rules(self, *rules: Rule) -> Policy:
        return Policy((*self.rules, *rules))

    def decide(self, call: ToolCall, default: Permission = Permission.ASK) -> Decision:
        """The permission of `call`, whose arguments must be checked and in their one canonical form.

        ASK is not allowed yet: `answered` makes the decision that follows from asking.
        """
        rule = max((rule for rule in self.rules if rule.matches(call.name, call.arguments)), key=_rank, default=None)
        permission = default if rule is None else rule.permission
        return Decision(permission, permission is Permission.ALWAYS, "" if rule is None else str(rule))


def answered(decision: Decision, answer: bool | None) -> Decision:
    """The decision after a person was asked. None is that nobody could be; only ASK can be changed by an answer."""
    if decision.permission is not Permission.ASK:
        return decision
    return Decision(decision.permission, answer is True, decision.rule, "nobody" if answer is None else "user")


def _rank(rule: Rule) -> tuple[bool, bool, int]:
    return rule.rank


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
