"""The environment that chat templates run in.

A template is code out of a model's files. It runs in jinja2's immutable sandbox: it reaches no attribute that begins
with an underscore, changes none of its inputs, and can include no file, for there is no loader. On top of that it has a
budget: every turn of a loop and every call counts, so loops that print nothing and macros that call themselves end
too; and every text is measured before it is built.

Covered: endless and nested loops, recursion of macros and loops, growing strings (`~`, `+`, `*`, `%`, join, replace,
padding, captured blocks) and growing numbers. Not covered: the time of one single operation on values of permitted
size (sorting a list, say), which is a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from . import sizes
from .budget import counted, spend

_COUNTED = "_counted"
_JOINED = "_joined"
_REMOVED_FILTERS = ("center", "filesizeformat", "pprint", "random", "truncate", "urlize", "wordwrap", "xmlattr")


class TemplateRefusal(TemplateError):
    """What a template raised on purpose, with `raise_exception`: it does not take these messages."""


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """A jinja2 environment with the options and helpers that transformers gives to chat templates, and with limits."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(sizes.join)

    def __init__(self) -> None:
        extensions = [_GenerationTag, loopcontrols]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=sizes.to_text)
        for name in _REMOVED_FILTERS:
            del self.filters[name]
        del self.globals["lipsum"]
        self.filters.update(sizes.guarded_filters(self.filters))
        self.filters.update({_COUNTED: _counted, _JOINED: _joined, "tojson": sizes.to_json})
        self.globals.update(
            range=_range, dict=_Dict(), namespace=_Namespace, raise_exception=_refuse, strftime_now=_strftime_now
        )

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Metering().visit(super()._parse(source, name, filename))
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call `__obj` for one step; items of a loop that calls itself are counted like those of the loop."""
        spend()
        if isinstance(__obj, LoopContext) and args:
            args = (counted(args[0]), *args[1:])
        sizes.check_call(__obj, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Operate on the two, where the result has a permitted size."""
        sizes.check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)


class _GenerationTag(Extension):
    """`{% generation %}` ... `{% endgeneration %}` around what the model writes; the body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Metering(NodeTransformer):
    """Puts the counter into every loop and the size check into every `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _COUNTED, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, _JOINED, [], [], None, None, lineno=node.lineno)


class _Dict:
    """`dict` for templates, without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """jinja2's namespace, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names there must not begin with an underscore")


def _refuse(message: object) -> NoReturn:
    raise TemplateRefusal(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _range(*args: int) -> range:
    result = range(*args)
    spend(len(result))
    return result


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    return counted(items)


def _joined(parts: list[Any]) -> str:
    return sizes.join(map(str, parts))
