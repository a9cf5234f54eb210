"""The solutions of equations, by sympy: the program that `solve` runs in a child. Imports nothing of ours.

Reads `{"equations": [...], "variables": [...]}` on stdin and writes `{"answer": text}` or `{"error": text}`. Text
becomes sympy objects by a walk over its syntax tree with a list of what is allowed: sympy's parser runs text as code.
"""

from __future__ import annotations

import ast
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sympy import Expr

MAX_DEPTH = 60
MAX_EXPONENT = 1000
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,15}")
_PRODUCT = re.compile(r"((?<![A-Za-z0-9_.])(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+|(?![eE][+-]?\d))|\))\s*(?=[A-Za-z(])")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "²": "^2", "³": "^3", "√": " sqrt "})
_FUNCTIONS = {
    **{name: name for name in ("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "exp", "log")},
    **{name: name for name in ("sin", "sinh", "sqrt", "tan", "tanh")},
    "abs": "Abs",
    "ln": "log",
}


class Wrong(Exception):
    """An equation that cannot be read; the message says which and why."""


def answer(equations: list[str], variables: list[str]) -> str:
    """The solutions, one a line. Raises Wrong for text that is no equation."""
    import sympy

    for name in variables:
        if not _NAME.fullmatch(name):
            raise Wrong(f"{name[:40]!r} is no name of a variable")
    sides = [_difference(text, set(variables)) for text in equations]
    unknown = sorted({symbol for side in sides for symbol in side.free_symbols}, key=str)
    asked = [sympy.Symbol(name) for name in variables] or unknown
    if not unknown:
        return (
            "true for every value" if all(side == 0 for side in map(sympy.simplify, sides)) else "there is no solution"
        )
    if all(sympy.simplify(side) == 0 for side in sides):
        return "true for every value"
    try:
        # A list of one equation takes another path in sympy, which finds less.
        found = sympy.solve(sides[0] if len(sides) == 1 else sides, asked, dict=True)
    except RuntimeError:  # sympy's way to say that it knows no method
        return _numerically(sides, asked)
    if not found:
        return "there is no solution"
    lines = [
        ", ".join(f"{symbol} = {_written(solution[symbol])}" for symbol in asked if symbol in solution)
        for solution in found
    ]
    return "\n".join(dict.fromkeys(lines))


def _numerically(sides: list[Expr], asked: list[Any]) -> str:
    import sympy

    if len(sides) != 1 or len(asked) != 1:
        raise Wrong("no exact solution is known for these equations")
    for start in (1, 0.1, -1, 10, -10, 100):
        try:
            return f"{asked[0]} = {sympy.nsolve(sides[0], asked[0], start)} (found numerically; there may be others)"
        except (ValueError, ZeroDivisionError, TypeError):
            continue
    raise Wrong("no solution was found, neither exactly nor numerically")


def _written(value: Expr) -> str:
    text = str(value)
    if value.is_number and not value.is_Integer:
        near = value.evalf(10)
        if "CRootOf" in text:
            return f"about {near}"
        return f"{text} (about {near})" if str(near) != text and len(text) < 2000 else str(near)
    return text


def _difference(text: str, variables: set[str]) -> Expr:
    """Left side minus right side; without `=`, the right side is 0."""
    sides = text.replace("==", "=").split("=")
    if len(sides) > 2:
        raise Wrong(f"{text[:60]!r} has more than one '='; give each equation by itself")
    parts = [_expression(side, variables) for side in sides]
    return parts[0] - parts[1] if len(parts) == 2 else parts[0]


def _expression(text: str, variables: set[str]) -> Expr:
    plain = _PRODUCT.sub(_with_sign, text.translate(_SIGNS)).replace("^", "**").strip()
    if not plain.isascii():
        raise Wrong(f"{text[:60]!r} holds characters that are not known")
    try:
        tree = ast.parse(plain, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Wrong(f"{text[:60]!r} is no expression: {getattr(error, 'msg', None) or 'nested too deeply'}") from error
    return _built(tree.body, variables, 0)


def _with_sign(match: re.Match[str]) -> str:
    return match[1] + "*"


def _built(node: ast.expr, variables: set[str], depth: int) -> Any:
    import sympy

    if depth > MAX_DEPTH:
        raise Wrong(f"at most {MAX_DEPTH} operations may be nested")
    match node:
        case ast.Constant(value=bool()):
            raise Wrong("only numbers and variables can be used, not truth values")
        case ast.Constant(value=int() as number):
            return sympy.Integer(number)
        case ast.Constant(value=float() as number) if math.isfinite(number):
            return sympy.Rational(repr(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_built(operand, variables, depth + 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _built(operand, variables, depth + 1)
        case ast.BinOp(left=left, op=op, right=right):
            return _joined(_built(left, variables, depth + 1), op, _built(right, variables, depth + 1))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return getattr(sympy, _FUNCTIONS[name])(_built(argument, variables, depth + 1))
        case ast.Name(id=name) if name in variables:
            return sympy.Symbol(name)
        case ast.Name(id="pi"):
            return sympy.pi
        case ast.Name(id="e" | "E"):
            return sympy.E
        case ast.Name(id=name) if _NAME.fullmatch(name) and name not in _FUNCTIONS:
            return sympy.Symbol(name)
    known = ", ".join(_FUNCTIONS)
    raise Wrong(f"{ast.unparse(node)[:60]!r} is not known; use numbers, variables, + - * / ^ and {known}")


def _joined(left: Any, op: ast.operator, right: Any) -> Any:
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            if right == 0:
                raise Wrong("division by zero")
            return left / right
        case ast.Pow():
            if right.is_number and abs(right) > MAX_EXPONENT:
                raise Wrong(f"an exponent is at most {MAX_EXPONENT}")
            return left**right
    raise Wrong("the operators are + - * / ^")


def main() -> None:
    asked = json.loads(sys.stdin.read())
    try:
        told = {"answer": answer(asked["equations"], asked["variables"])}
    except Wrong as error:
        told = {"error": str(error)}
    except (ArithmeticError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        told = {"error": f"sympy cannot solve this: {type(error).__name__}"}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
