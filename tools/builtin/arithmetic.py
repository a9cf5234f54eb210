"""The value of an arithmetic expression, by walking its syntax tree: nothing is ever run as code.

Numbers are Python's own (whole numbers of any size, double precision), so are the operators `+ - * / // % **` and their
precedence. Every operation is bounded before it is carried out, so any expression is done in milliseconds.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from ..errors import ToolFailed

MAX_LENGTH = 1000  # characters
MAX_DEPTH = 100  # nested operations
MAX_BITS = 10_000  # of a whole number; 3,010 digits, and Python writes up to 4,300 at once
MAX_STEPS = 1000  # arguments of factorial, comb and perm

Number = int | float

_CONSTANTS: dict[str, float] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "\n": " ", "\r": " ", "\t": " "})
_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_PLAIN: tuple[Callable[..., Number], ...] = (
    math.acos,
    math.acosh,
    math.asin,
    math.asinh,
    math.atan,
    math.atan2,
    math.atanh,
    math.cbrt,
    math.ceil,
    math.copysign,
    math.cos,
    math.cosh,
    math.degrees,
    math.erf,
    math.exp,
    math.expm1,
    math.fabs,
    math.floor,
    math.fmod,
    math.gamma,
    math.gcd,
    math.hypot,
    math.isqrt,
    math.lgamma,
    math.log,
    math.log10,
    math.log1p,
    math.log2,
    math.radians,
    math.sin,
    math.sinh,
    math.sqrt,
    math.tan,
    math.tanh,
    math.trunc,
)


def evaluate(text: str) -> Number:
    """The value of `text`, finite and real. Raises ToolFailed that says what is wrong with it and where."""
    if len(text) > MAX_LENGTH:
        raise ToolFailed(f"an expression has at most {MAX_LENGTH} characters")
    text = text.translate(_SIGNS).strip()
    if not text.isascii():
        raise ToolFailed("write numbers and operators in ASCII, such as 2 * (3 + 4)")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError) as error:
        raise ToolFailed(f"this is no expression: {_cause(error)}") from error
    try:
        return _checked(_value(tree.body, 0))
    except ZeroDivisionError as error:
        raise ToolFailed("division by zero") from error
    except OverflowError as error:
        raise ToolFailed("the result is too large") from error
    except (ValueError, TypeError) as error:
        raise ToolFailed(f"this cannot be computed: {str(error)[:200]}") from error


def written(number: Number) -> str:
    """`number` as Python writes it."""
    return repr(number)


def _cause(error: BaseException) -> str:
    return str(getattr(error, "msg", "") or "it is nested too deeply")[:200]


def _value(node: ast.expr, depth: int) -> Number:
    if depth > MAX_DEPTH:
        raise ToolFailed(f"at most {MAX_DEPTH} operations may be nested")
    match node:
        case ast.Constant(value=bool()):
            raise ToolFailed("only numbers can be computed with, not truth values")
        case ast.Constant(value=int() | float() as number):
            return _checked(number)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, depth + 1)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, depth + 1)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left, depth + 1), _value(right, depth + 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _checked(_BINARY[type(op)](_value(left, depth + 1), _value(right, depth + 1)))
        case ast.BinOp(op=ast.BitXor()):
            raise ToolFailed("write powers as 2 ** 10")
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if not any(
            isinstance(argument, ast.Starred) for argument in arguments
        ):
            return _checked(_call(name, [_value(argument, depth + 1) for argument in arguments]))
        case ast.Tuple():
            raise ToolFailed("write one number at a time, without commas between thousands")
        case ast.Name(id=name):
            raise ToolFailed(f"{name[:50]!r} is not known; there are numbers, {', '.join(_CONSTANTS)}, and functions")
    raise ToolFailed("only numbers, + - * / // % **, parentheses and functions such as sqrt(2) can be used")


def _checked(number: object) -> Number:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ToolFailed("the result is not a real number")
    if isinstance(number, int):
        if number.bit_length() > MAX_BITS:
            raise ToolFailed("a whole number here has at most about 3,000 digits")
    elif not math.isfinite(number):
        raise ToolFailed("the result is too large, or not a number")
    return number


def _power(base: Number, exponent: Number) -> Number:
    whole = isinstance(base, int) and isinstance(exponent, int) and exponent > 0
    if whole and (base.bit_length() - 1) * exponent > MAX_BITS:  # type: ignore[union-attr]
        raise ToolFailed("a whole number here has at most about 3,000 digits")
    return _checked(base**exponent)


def _counting(name: str) -> Callable[..., Number]:
    def counted(*numbers: Number) -> Number:
        if any(isinstance(number, float) or number > MAX_STEPS for number in numbers):
            raise ToolFailed(f"{name} takes whole numbers up to {MAX_STEPS}")
        return getattr(math, name)(*numbers)  # type: ignore[no-any-return]

    return counted


def _round(number: Number, digits: int = 0) -> Number:
    if isinstance(digits, float) or abs(digits) > MAX_STEPS:
        raise ToolFailed(f"the digits to round to are a whole number up to {MAX_STEPS}")
    return round(number, digits) if digits else round(number)


def _lcm(*numbers: int) -> int:
    if sum(int(number).bit_length() for number in numbers) > MAX_BITS:
        raise ToolFailed("a whole number here has at most about 3,000 digits")
    return math.lcm(*numbers)


def _sum(*numbers: Number) -> Number:
    return sum(numbers)


_FUNCTIONS: dict[str, Callable[..., Number]] = {
    **{function.__name__: function for function in _PLAIN},
    **{name: _counting(name) for name in ("factorial", "comb", "perm")},
    "abs": abs,
    "lcm": _lcm,
    "max": max,
    "min": min,
    "pow": _power,
    "round": _round,
    "sum": _sum,
}


def _call(name: str, numbers: list[Number]) -> Number:
    if name not in _FUNCTIONS:
        raise ToolFailed(f"there is no function {name[:50]!r}; known are {', '.join(sorted(_FUNCTIONS))}")
    return _FUNCTIONS[name](*numbers)
