from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.contract.errors import ConfigError
from tunechat.tools.permissions import Policy, Rule, answered
from tunechat.tools.records import Decision, Permission, ToolCall

ALWAYS, ASK, NEVER = Permission.ALWAYS, Permission.ASK, Permission.NEVER


def decided(rules: list[str], name: str, default: Permission = ASK, **arguments: object) -> Permission:
    return Policy.parse(rules).decide(ToolCall("1", name, arguments), default).permission


def test_without_rules_the_tools_own_default_holds() -> None:
    assert decided([], "calculate", ALWAYS) is ALWAYS
    assert decided([], "python", NEVER) is NEVER
    decision = Policy().decide(ToolCall("1", "x"), ASK)
    assert decision == Decision(ASK, allowed=False, rule="", by="policy")


@pytest.mark.parametrize(
    ("rules", "name", "arguments", "expected"),
    [
        (["calculate=never"], "calculate", {}, NEVER),
        (["calculate=never"], "calculator", {}, ASK),
        (["github_*=always"], "github_search", {}, ALWAYS),
        (["*=never", "calculate=always"], "calculate", {}, ALWAYS),
        (["*=never", "calculate=always"], "solve", {}, NEVER),
        (["fetch=always", "fetch=never"], "fetch", {}, NEVER),
        (
            ["fetch=never", "fetch(url=https://docs.example/*)=always"],
            "fetch",
            {"url": "https://docs.example/a"},
            ALWAYS,
        ),
        (
            ["fetch=never", "fetch(url=https://docs.example/*)=always"],
            "fetch",
            {"url": "https://docs.example.evil/"},
            NEVER,
        ),
        (["read_file=always", "*(path=*secret*)=never"], "read_file", {"path": "a/secrets.txt"}, NEVER),
        (["read_file=always", "*(path=*secret*)=never"], "read_file", {"path": "a/b.txt"}, ALWAYS),
        (["x(n=3)=always"], "x", {"n": 3}, ALWAYS),
        (["x(flag=true)=always"], "x", {"flag": True}, ALWAYS),
        (["x(n=*)=always"], "x", {}, ASK),
        (["x(to=*@home)=always"], "x", {"to": ["a@home", "b@evil"]}, ASK),
        (["x(to=*@home)=always"], "x", {"to": []}, ASK),
        (["x(to=*@evil)=never"], "x", {"to": ["a@home", "b@evil"]}, NEVER),
        (['x(o=*"deep"*)=never'], "x", {"o": {"a": {"b": "deep"}}}, NEVER),
        (["Fetch=always"], "fetch", {}, ASK),
    ],
)
def test_the_rule_that_wins(rules: list[str], name: str, arguments: dict[str, object], expected: Permission) -> None:
    assert decided(rules, name, **arguments) is expected
    assert decided(rules[::-1], name, **arguments) is expected, "the order of rules must not matter"


@pytest.mark.parametrize(
    "text", ["", "x", "x=maybe", "=always", "x(=always", "x(a=b)", "x y=always", "x(a b=c)=always"]
)
def test_what_is_no_rule_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError):
        Rule.parse(text)


@given(
    st.from_regex(r"[a-z_*]{1,10}", fullmatch=True),
    st.sampled_from(list(Permission)),
    st.none()
    | st.tuples(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.from_regex(r"[a-z*/=()]{0,12}", fullmatch=True)),
)
def test_a_rule_reads_as_it_is_written(tool: str, permission: Permission, about: tuple[str, str] | None) -> None:
    rule = Rule(tool, permission, *about) if about else Rule(tool, permission)
    assert Rule.parse(str(rule)) == rule


@given(
    st.lists(
        st.sampled_from(["x=always", "x=ask", "x=never", "*=always", "x(a=1*)=always", "x(a=*2)=never"]), max_size=6
    )
)
def test_never_about_an_argument_is_final(rules: list[str]) -> None:
    assert decided([*rules, "x(a=*12)=never"], "x", a="12") is NEVER


def test_only_ask_can_be_changed_by_an_answer() -> None:
    ask = Decision(ASK, False, "x=ask")
    assert answered(ask, True) == Decision(ASK, True, "x=ask", "user")
    assert answered(ask, False).by == "user" and not answered(ask, False).allowed
    assert answered(ask, None).by == "nobody" and not answered(ask, None).allowed
    never = Decision(NEVER, False)
    assert answered(never, True) == never


@pytest.mark.parametrize(
    ("rules", "default", "excluded"),
    [
        ([], NEVER, True),
        ([], ASK, False),
        (["x=never"], ALWAYS, True),
        (["*=never", "x=ask"], ALWAYS, False),
        (["x=never", "x(a=1)=always"], ALWAYS, False),
        (["x=never", "y(a=1)=always"], ALWAYS, True),
        (["x=never", "x(a=1)=never"], ALWAYS, True),
    ],
)
def test_a_tool_is_excluded_where_no_call_of_it_can_run(rules: list[str], default: Permission, excluded: bool) -> None:
    assert Policy.parse(rules).excludes("x", default) is excluded
