from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.engine.rotation import Rotation


def test_nobody_waits_for_more_than_one_of_each_other() -> None:
    rotation: Rotation[str] = Rotation()
    for tenant, item in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")):
        rotation.put(tenant, item)
    assert [rotation.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not rotation


@given(puts=st.lists(st.sampled_from("abc"), max_size=30))
def test_everything_comes_once_and_in_order_for_each(puts: list[str]) -> None:
    rotation: Rotation[tuple[str, int]] = Rotation()
    for at, tenant in enumerate(puts):
        rotation.put(tenant, (tenant, at))
    taken = []
    while rotation:
        taken.append(rotation.take())
    assert sorted(at for _, at in taken) == list(range(len(puts)))
    for tenant in "abc":
        mine = [at for name, at in taken if name == tenant]
        assert mine == sorted(mine)
