from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunechat.tools.builtin.arithmetic import MAX_BITS, MAX_LENGTH, evaluate, written
from tunechat.tools.builtin.calculate import CalculateArgs, calculate, make
from tunechat.tools.errors import ToolFailed

HOSTILE = [
    "9**9**9",
    "9**9**9**9",
    "-9**9**9",
    "2**10**10",
    "(10**300)**(10**300)",
    "1e308*10",
    "1e999",
    "factorial(10**9)",
    "factorial(1001)",
    "comb(10**6, 5*10**5)",
    "perm(10**9, 10**8)",
    "round(1, -10**9)",
    "round(12345, 10**10)",
    '"a"*10**9',
    "[1]*10**9",
    "().__class__",
    "().__class__.__bases__[0].__subclasses__()",
    "__import__('os').system('id')",
    "(lambda: 1)()",
    "[x for x in range(10)]",
    "open('/etc/passwd')",
    "eval('1')",
    "sqrt.__globals__",
    "sqrt(*[4])",
    "sqrt(x=4)",
    "f'{1}'",
    "(x := 1)",
    "1 if 1 else 2",
    "True + 1",
    "None",
    "1j",
    "(-8)**0.5",
    "1/0",
    "0**-1",
    "1%0",
    "sqrt(-1)",
    "log(0)",
    "gamma(1000)",
    "lcm(10**1500+1, 10**1499+3, 10**1498+7)",
    "1 < 2",
    "1 << 100000",
    "2^10",
    "~1",
    "1,000",
    "nan",
    "inf",
    "e1",
    "",
    " ",
    "1;2",
    "1\x002",
    "١+٢",
    "１+１",
    "𝟏+𝟏",
    "0x",
    "08",
    "1__0",
    "(" * 400,
    "(" * 300 + "1" + ")" * 300,
    "-" * 900 + "1",
    "1" + "+1" * 499,
    "abs(" * 120 + "1" + ")" * 120,
    "1" * 5000,
    "max()",
    "gcd(1.5, 2)",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:30])
def test_hostile_expressions_are_refused_in_words(text: str) -> None:
    with pytest.raises(ToolFailed) as refused:
        evaluate(text)
    assert 0 < len(refused.value.message) < 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("2 ** 10 / 7", repr(2**10 / 7)),
        ("-2 ** 2", "-4"),
        ("7 // -2", "-4"),
        ("-7 % 3", "2"),
        ("2 ** -2", "0.25"),
        ("10 ** 30 + 1", str(10**30 + 1)),
        ("0.1 + 0.2", repr(0.1 + 0.2)),
        ("3 × 4 ÷ 2 − 1", "5.0"),
        ("sqrt(2) * pi", repr(math.sqrt(2) * math.pi)),
        ("round(2.675, 2)", repr(round(2.675, 2))),
        ("round(2.5)", "2"),
        ("factorial(20)", str(math.factorial(20))),
        ("comb(10, 3) + perm(5, 2)", "140"),
        ("max(1, 2.5, 2) + min(3, 4)", "5.5"),
        ("sum(1, 2, 3)", "6"),
        ("gcd(12, 18) * lcm(4, 6)", "72"),
        ("log(8, 2)", repr(math.log(8, 2))),
        ("0x10 + 0b11 + 1_000", "1019"),
        ("1e3", "1000.0"),
        ("atan2(1, 1) - degrees(0)", repr(math.atan2(1, 1))),
    ],
)
def test_values(text: str, expected: str) -> None:
    assert calculate(text) == expected


Numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


def joined(parts: tuple[str, str, str]) -> str:
    return f"({parts[0]} {parts[1]} {parts[2]})"


Expressions = st.recursive(
    Numbers.map(lambda number: f"({number!r})"),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner).map(joined)
        | inner.map(lambda text: f"-{text}")
    ),
    max_leaves=8,
)


def by_python(text: str) -> Any:
    """The oracle: Python itself, for expressions that this test wrote and whose powers stay small."""
    return eval(text, {"__builtins__": {}})  # noqa: S307


def small_powers(text: str) -> bool:
    return text.count("**") == 0 or not any(len(part) > 6 for part in text.replace("(", " ").replace(")", " ").split())


@example("((14) ** (269))")
@given(Expressions.filter(lambda text: len(text) <= MAX_LENGTH))
def test_equals_pythons_arithmetic_where_it_is_defined(text: str) -> None:
    if not small_powers(text) or text.count("**") > 1:
        try:
            evaluate(text)
        except ToolFailed:
            return
        return
    try:
        expected = by_python(text)
    except (ZeroDivisionError, OverflowError):
        with pytest.raises(ToolFailed):
            evaluate(text)
        return
    defined = isinstance(expected, int) or (isinstance(expected, float) and math.isfinite(expected))
    if not defined or (isinstance(expected, int) and expected.bit_length() > MAX_BITS):
        with pytest.raises(ToolFailed):
            evaluate(text)
        return
    try:
        assert written(evaluate(text)) == repr(expected)
    except ToolFailed as refused:
        # An intermediate whole number may be too large although the value is not.
        assert "digits" in refused.message


@given(st.text(alphabet="0123456789.+-*/%()e, sqrtfacoilmx_'\"[]{}:\\×", max_size=300))
@example("9" * 300 + "**" + "9" * 300)
def test_any_text_gives_a_number_or_a_refusal(text: str) -> None:
    try:
        value = evaluate(text)
    except ToolFailed:
        return
    assert not isinstance(value, bool) and math.isfinite(value) if isinstance(value, float) else isinstance(value, int)


def test_works_outside_the_main_thread() -> None:
    outcome: list[str] = []

    def work() -> None:
        outcome.append(calculate("6 * 7"))
        try:
            calculate("9**9**9")
        except ToolFailed as refused:
            outcome.append(refused.message)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert outcome[0] == "42" and "digits" in outcome[1]


def test_the_tool_takes_one_bounded_argument() -> None:
    tool = make()
    assert tool.name == "calculate" and tool.invoke({"expression": "6*7"}) == "42"
    assert CalculateArgs.model_json_schema()["additionalProperties"] is False
    assert CalculateArgs.model_json_schema()["properties"]["expression"]["maxLength"] == MAX_LENGTH
