"""Regular expressions of requests, tried before they are handed on."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from ...contract.errors import InvalidRequest
from .attempt import problem_of

MAX_PATTERN = 2_000
MAX_TOLD = 200
# Characters of a pattern with its counted repetitions written out.
MAX_EXPANDED = 50_000
_ATOM = re.compile(r"\\[pPxuU]\{[^}]*\}|\\.|\{(\d+)(?:,(\d*))?\}|\[\^?\]?|.", re.DOTALL)


def check_pattern(pattern: Any, path: str) -> None:
    """Raise InvalidRequest, with the path, where `pattern` is not a regular expression that a grammar can hold."""
    if not isinstance(pattern, str):
        raise InvalidRequest("A pattern must be a string.", param=path)
    if len(pattern) > MAX_PATTERN:
        raise InvalidRequest(f"A pattern may have {MAX_PATTERN} characters.", param=path)
    if expanded_length(pattern) > MAX_EXPANDED:
        raise InvalidRequest(
            f"With its repetitions written out, a pattern may have {MAX_EXPANDED} characters; make the counts smaller.",
            param=path,
        )
    problem = _problem(pattern)
    if problem:
        raise InvalidRequest(
            f"This pattern cannot be used: {problem} Look-around and back-references are not supported.", param=path
        )


def expanded_length(pattern: str) -> int:
    """A bound on the characters of `pattern` with each `x{n,m}` written as m times x. Linear."""
    groups, last, depth = [0], 0, 0
    for match in _ATOM.finditer(pattern):
        atom = match[0]
        if depth:
            # In a class, only brackets count.
            depth += atom.startswith("[") - (atom == "]")
        elif match[1] is not None:
            count = max(int(match[1][:9]), int((match[2] or "0")[:9]), 1)
            groups[-1] += last * (count - 1)
            last *= count
        elif atom == "(":
            groups.append(0)
        elif atom == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif atom not in "*+?":
            depth = int(atom.startswith("["))
            last = int(atom != "|")
            groups[-1] += last
    return sum(groups)


@lru_cache(maxsize=1024)
def _problem(pattern: str) -> str:
    from llguidance import LLMatcher

    problem = problem_of(LLMatcher.grammar_from_regex(pattern))
    if not problem:
        return ""
    told = " ".join(problem.partition("\n   1 |")[0].rpartition("error:")[2].split())
    return told[:MAX_TOLD] + "."
