"""The sandbox: what a hostile or broken template cannot do, and how it is told."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from tunechat.serve.contract.errors import InvalidRequest, ModelError, TunechatError
from tunechat.serve.text import budget
from tunechat.serve.text.template import MAX_SOURCE, ChatTemplate

USER = [{"role": "user", "content": "Hello"}]
# Runs only for chats of two messages, so that a template can be loaded and then misbehave.
ARMED = "{% if messages | length > 1 %}BODY{% endif %}"


def render(source: str, messages: list[dict[str, object]] | None = None) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(messages or USER)


def armed(body: str) -> ChatTemplate:
    return ChatTemplate(ARMED.replace("BODY", body), {})


@pytest.mark.parametrize(
    "expression",
    [
        "cycler.__init__.__globals__.os.system('touch CANARY')",
        "self.__init__.__globals__",
        "messages.__class__.__mro__",
        "''.__class__.__base__.__subclasses__()",
        "namespace.__init__.__globals__",
        "raise_exception.__globals__",
        "(messages | attr('__class__')).mro()",
        "'{0.__class__.__mro__}'.format(messages)",
        "'{m.__class__}'.format_map({'m': messages})",
        "messages[0]['__class__'].mro()",
        "messages.append(1)",
        "messages[0].update({'role': 'system'})",
        "dict.__call__.__globals__",
        "range.__globals__",
        "strftime_now.__globals__",
        "joiner.__init__.__globals__",
    ],
)
def test_the_sandbox_cannot_be_left(expression: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = "{{ EXPR }}".replace("EXPR", expression.replace("CANARY", str(canary)))
    try:
        rendered = render(source)
    except (InvalidRequest, ModelError):
        rendered = ""
    assert rendered in ("", "None")
    assert not canary.exists()
    assert USER == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("source", ["{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% extends 'base' %}"])
def test_no_file_is_read(source: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot render"):
        armed(source).render(USER * 2) if "extends" not in source else render(source + " ")


@pytest.mark.parametrize("name", ["_x", "__class__"])
def test_a_namespace_takes_no_private_names(name: str) -> None:
    with pytest.raises(ModelError, match="sandbox"):
        render("{% set ns = namespace(" + name + "=1) %}")


ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(999) %}{% for b in range(999) %}{% for c in range(999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{% for a in [1] recursive %}{% if loop.depth < 9 %}{{ loop(messages * 9999) }}{% endif %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for a in range(9999999) %}{% set ns.n = ns.n + 1 %}{% endfor %}",
    "{% for a in 'x' * 4000000 %}{% for b in range(9) %}{% endfor %}{% endfor %}",
    "{% for a in range(900) %}{% if (range(90000) | list | length) %}{% endif %}{% endfor %}",
    "{% for a in range(90000) if a < 0 %}{% endfor %}" * 20,
]
HUGE = [
    "{{ 'x' * 100000000 }}",
    "{{ 100000000 * 'x' }}",
    "{{ ([1] * 100000000) | length }}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = ''.join([ns.s, ns.s]) %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = '%s%s' | format(ns.s, ns.s) %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "{% set ns = namespace(s=2) %}{% for a in range(64) %}{% set ns.s = ns.s * ns.s %}{% endfor %}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 'x'.ljust(100000000) }}",
    "{{ 'x'.zfill(width=100000000) }}",
    "{{ '%100000000d' % 1 }}",
    "{{ '%*d' % (100000000, 1) }}",
    "{{ '{:100000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 100000000) }}",
    "{{ '%100000000d' | format(1) }}",
    "{{ 'x' | indent(100000000, true) }}",
    "{{ messages | tojson(indent=100000000) }}",
    "{{ [] | slice(100000000) | list }}",
    "{{ [1] | batch(100000000, 'x') | list }}",
    "{% for a in range(99999) %}" + "x" * 99 + "{% endfor %}",
    "{% macro f() %}{% for a in range(99999) %}" + "x" * 99 + "{% endfor %}{% endmacro %}{{ f() }}",
]


@pytest.mark.parametrize("body", [*ENDLESS, *HUGE])
def test_a_template_that_takes_too_much_is_stopped(body: str) -> None:
    template = armed(body)
    started = time.process_time()
    with pytest.raises(InvalidRequest) as raised:
        template.render(USER * 2)
    assert time.process_time() - started < budget.MAX_SECONDS + 2
    assert raised.value.param == "messages"
    assert "Traceback" not in raised.value.message


def test_dear_steps_are_bounded_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.05)
    big = [{"role": "user", "content": "x" * 100_000}] * 2
    with pytest.raises(InvalidRequest, match=r"0\.05 seconds"):
        armed("{% for a in range(9999) %}{{ messages[0].content | list | sort | length }}{% endfor %}").render(big)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 100000000 }}",
        "{{ messages.__class__.__mro__ }}",
        "{% if %}",
        "{{ x | nofilter }}",
        "{{ 'x' | center(99999999) }}",
        "{{ ((((((((" * 99,
        "{" * 3000,
        "x" * (MAX_SOURCE + 1),
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    ],
)
def test_a_template_that_can_never_work_is_refused_at_load(source: str) -> None:
    with pytest.raises(ModelError):
        ChatTemplate(source, {})


def test_a_refusal_carries_the_templates_own_words() -> None:
    with pytest.raises(InvalidRequest, match="No system messages here") as raised:
        armed("{{ raise_exception('No system messages here') }}").render(USER * 2)
    assert raised.value.param == "messages"


@pytest.mark.parametrize("body", ["{{ 1 / 0 }}", "{{ messages[0].x.y }}", "{{ messages + 1 }}", "{{ nothing() }}"])
def test_a_failure_shows_no_trace_and_no_file(body: str) -> None:
    with pytest.raises(TunechatError) as raised:
        armed(body).render(USER * 2)
    assert raised.value.http_status == 400
    assert "line" not in raised.value.message
    assert ".py" not in raised.value.message


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("{{ bos_token }}", "<s>"),
        ("{{ none }}{{ nothing }}{{ true }}", "NoneTrue"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hello"}]'),
        ("{{ '<ü>' | tojson }}{{ 'ü' | tojson(ensure_ascii=true) }}", '"<ü>""\\u00fc"'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{% generation %}a{% set x = 'b' %}{{ x }}{% endgeneration %}", "ab"),
        ("{% for i in [0, 1, 2] %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "02"),
        ("{% for i in [0, 1, 2] %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% endfor %}", "0"),
        (
            "{% for c in 'abc' %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
            "1/3False 2/3False 3/3True ",
        ),
        ("{% for c in 'abc' %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex0 }}{% endfor %}", "b2ac1b0"),
        ("{% for c in [] %}x{% else %}empty{% endfor %}", "empty"),
        ("{% for k, v in {'a': 1}.items() %}{{ k ~ v }}{% endfor %}", "a1"),
        ("{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}", "123"),
        (
            "{% macro m(x) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}{{ m(1) }}{% call m(2) %}c{% endcall %}",
            "<1><2c>",
        ),
        ("{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}", "2"),
        ("{{ dict(a=1).a }}{{ dict.fromkeys(['b'], 2).b }}", "12"),
        ("{{ ['a', 'b'] | join(', ') }}{{ messages | join('', attribute='role') }}", "a, buser"),
        ("{{ range(3) | map('string') | join }}", "012"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ 'aXb' | replace('X', '-') }}{{ 'aXa'.replace('a', 'b', 1) }}{{ 'x' | upper | trim }}", "a-bbXaX"),
        ("{{ 7 % 4 }}{{ 2 ** 5 }}{{ 3 * 4 }}{{ [1] + [2] }}{{ (1,) + (2,) }}{{ 'ab' * 2 }}", "33212[1, 2](1, 2)abab"),
        ("{{ '%s-%05d' % ('a', 3) }}{{ '{}{:>3}'.format('a', 'b') }}{{ '%s' | format(1) }}", "a-00003a  b1"),
        ("{{ [1, 2, 3] | batch(2) | list }}{{ [1, 2, 3] | slice(2) | list }}", "[[1, 2], [3]][[1, 2], [3]]"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{%- set x -%} a {%- endset -%}{{ x }}", "a"),
        ("a\n  {% if true %}\nb\n  {% endif %}\n", "a\nb\n"),
        ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
    ],
)
def test_helpers_and_limits_leave_ordinary_templates_alone(source: str, rendered: str) -> None:
    assert render(source) == rendered


def test_a_long_chat_is_far_from_the_limits() -> None:
    source = "{% for m in messages %}{{ m.role + ': ' + m.content | trim }}{% if loop.last %}.{% endif %}{% endfor %}"
    chat: list[dict[str, object]] = [{"role": "user", "content": "word " * 100}] * 5000
    assert len(render(source, chat)) > 2_000_000


def test_content_may_be_parts_only_where_it_renders_the_same() -> None:
    assert not ChatTemplate("{{ messages[0].content }}", {}).accepts_parts
    both = "{% set c = messages[0].content %}{{ c if c is string else c | map(attribute='text') | join }}"
    assert ChatTemplate(both, {}).accepts_parts
