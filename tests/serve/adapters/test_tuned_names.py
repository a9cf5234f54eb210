"""Names of fine-tuned models: what is written is read back, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.adapters.names import check_name
from tunechat.serve.adapters.tuned_names import (
    TunedName,
    checkpoints_name,
    is_checkpoints,
    own_name,
    parse_tuned,
    step_label,
    tuned_name,
)

JOB = "ftjob-0123456789abcdef01234567"
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
digits = st.from_regex(r"[0-9a-f]{8}", fullmatch=True)
jobs = digits.map(lambda eight: f"ftjob-{eight}0123456789abcdef")
steps = st.none() | st.integers(0, 999_999_999)
bases = st.text(min_size=1, max_size=40) | st.from_regex(r"[a-z:]{1,20}", fullmatch=True)


@given(bases, names, jobs, steps)
def test_what_is_written_is_read_back(base: str, name: str, job: str, step: int | None) -> None:
    """Whatever colons the base's name has: the name is read from its end."""
    assert parse_tuned(tuned_name(base, name, job, step)) == TunedName(base, name, job[6:14], step)


@given(bases, jobs, steps)
def test_an_adapter_without_a_name_of_its_own_leaves_its_place_empty(base: str, job: str, step: int | None) -> None:
    text = tuned_name(base, own_name(job), job, step)
    assert text.startswith(f"ft:{base}::{job[6:14]}")
    assert parse_tuned(text) == TunedName(base, own_name(job), job[6:14], step)


@given(st.text(st.sampled_from("ft:abz019-@/ckps\n"), max_size=60).map(lambda text: f"ft:{text}") | st.text())
def test_what_is_read_is_written_the_same(text: str) -> None:
    tuned = parse_tuned(text)
    assert tuned is None or str(tuned) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "ft:", "ft:base:support", "ft::support:01234567", "ft:base:support:0123456", "ft:base:support:012345678",
        "ft:base:support:0123456G", "ft:base:support:01234567:ckpt-step-", "ft:base:support:01234567:ckpt-step-01",
        "ft:base:support:01234567:ckpt-step--1", "ft:base:support:01234567:ckpt-step-1000000000",
        "ft:base:support:01234567:step-1", "ft:base:support:01234567 ", "ft:base:../x:01234567", "ft:base:-x:01234567",
        "ft:base:a@1:01234567", "FT:base:support:01234567", "ft:base:support:01234567\n", "ft:base:é:01234567",
        "ft:base:tuned-01234567:01234567", "ft:base:support:٠١٢٣٤٥٦٧", "ft:base:support:01234567:ckpt-step-٣",
    ],
)  # fmt: skip
def test_nothing_else_is_such_a_name(text: str) -> None:
    assert parse_tuned(text) is None


@given(names, jobs)
def test_checkpoints_lie_under_a_name_that_is_one(name: str, job: str) -> None:
    held = check_name(checkpoints_name(name, job))
    assert held.startswith(name[:45]) and held.endswith(f".ckpt-{job[6:14]}")
    assert TunedName("base", name, job[6:14], 7).adapter == held
    assert TunedName("base", name, job[6:14]).adapter == name


def test_a_name_means_the_version_that_its_label_names() -> None:
    labels = {JOB: 3, "ftjob-76543210aaaaaaaa": 4, "step-10": 5, "step-1": 6}
    assert TunedName("base", "a", JOB[6:14]).number(labels) == 3
    assert TunedName("base", "a", "76543210").number(labels) == 4
    assert TunedName("base", "a", "00000000").number(labels) is None
    assert TunedName("base", "a", JOB[6:14], 1).number(labels) == 6
    assert TunedName("base", "a", JOB[6:14], 2).number(labels) is None
    assert step_label(10) in labels and is_checkpoints({step_label(1): 1}) and not is_checkpoints({JOB: 3})
