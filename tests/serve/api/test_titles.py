"""What is remembered of stored names: owners, labels, and what the names of fine-tuned models mean."""

from __future__ import annotations

import pytest

from tunechat.serve.adapters.store import UNKNOWN_OWNER, StoredAdapter
from tunechat.serve.api.titles import Titles
from tunechat.serve.contract.errors import InvalidRequest, ModelNotFound
from tunechat.tests.serve.api.test_roster import version

JOB, NAMELESS = "ftjob-0123456789abcdef", "ftjob-76543210aaaaaaaa"


@pytest.fixture
def titles() -> Titles:
    titles = Titles(("tiny", "org/tiny"))
    versions = (version("a", 1), version("a", 2))
    titles.note(StoredAdapter("a", 2, frozenset(), versions, "o", {JOB: 2, "mine": 1}))
    titles.note(StoredAdapter("tuned-76543210", 1, frozenset(), (version("tuned-76543210"),), "", {NAMELESS: 1}))
    titles.note(StoredAdapter("a.ckpt-01234567", 1, frozenset(), (version("x"),), "o", {"step-3": 1}))
    return titles


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a", "a"), ("a@1", "a@1"), ("nothing", "nothing"), ("ft:tiny:a:01234567", "a@2"),
        ("ft:org/tiny:a:01234567", "a@2"), ("ft:tiny::76543210", "tuned-76543210@1"),
        ("ft:tiny:a:01234567:ckpt-step-3", "a.ckpt-01234567@1"),
    ],
)  # fmt: skip
def test_what_names_mean(titles: Titles, text: str, meant: str) -> None:
    assert titles.meaning(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "ft:", "ft:tiny:a:76543210", "ft:else:a:01234567", "ft:tiny:b:01234567", "ft:tiny:a:01234567:ckpt-step-4",
        "ft:tiny:a:mine", "ft:tiny::01234567",
    ],
)  # fmt: skip
def test_names_of_nothing(titles: Titles, text: str) -> None:
    with pytest.raises(ModelNotFound):
        titles.meaning(text)


def test_owners(titles: Titles) -> None:
    assert [titles.owner(name) for name in ("a", "tuned-76543210", "b")] == ["o", "", None]
    assert [titles.owner_of(text) for text in ("a", "a@9", "b@1")] == ["o", "o", UNKNOWN_OWNER]
    with pytest.raises(InvalidRequest):
        titles.owner_of("a b")


def test_finished_models_are_listed_and_checkpoints_are_not(titles: Titles) -> None:
    assert titles.tuned() == [("ft:tiny::76543210", "tuned-76543210@1"), ("ft:tiny:a:01234567", "a@2")]
    assert [titles.is_checkpoint(name) for name in ("a", "a.ckpt-01234567", "b")] == [False, True, False]


def test_a_name_goes_with_its_last_version(titles: Titles) -> None:
    titles.forget("b", {1})
    titles.forget("a", {2})
    assert titles.tuned() == [("ft:tiny::76543210", "tuned-76543210@1")]
    assert titles.owner("a") == "o"
    titles.forget("a", {1})
    assert titles.owner("a") is None
