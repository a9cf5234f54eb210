"""The curve has a line for each step, once, however often a training was ended and went on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.contract.jobs import TrainingStep
from tunechat.trainer.curve import COLUMNS, Curve, Point, read_curve, thinned
from tunechat.trainer.picture import draw_curve


def done(step: int, loss: float = 1.5) -> TrainingStep:
    return TrainingStep(
        step=step, epoch=step / 4, loss=loss, rate=1e-3, gradient_norm=2.0, trained_tokens=5, tokens=9, seconds=0.25,
        memory=1 << 20,
    )  # fmt: skip


def test_each_step_is_a_line(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.csv", 0)
    curve.add(done(1))
    curve.measured(1.25)
    curve.add(done(2, 0.5))
    curve.sync()
    curve.close()
    assert (tmp_path / "curve.csv").read_text() == (
        f"{','.join(COLUMNS)}\n1,0.25,1.5,1.25,0.001,2,9,0.25,1048576\n2,0.5,0.5,,0.001,2,9,0.25,1048576\n"
    )
    assert list(read_curve(curve.path)) == [Point(1, 0.25, 1.5, 1.25, 1e-3), Point(2, 0.5, 0.5, None, 1e-3)]


@pytest.mark.parametrize("torn", ["", "4", "4,1,0.5", "junk\n", "\x00\x00"])
def test_goes_on_behind_the_checkpoint(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "curve.csv"
    curve = Curve(path, 0)
    for step in (1, 2, 3):
        curve.add(done(step))
    curve.close()
    path.write_text(path.read_text() + torn)
    curve = Curve(path, 2)
    # The measurement behind step 2 was not made before.
    curve.measured(0.75)
    curve.add(done(3, 9.0))
    curve.close()
    assert [(point.step, point.train_loss, point.valid_loss) for point in read_curve(path)] == [
        (1, 1.5, None),
        (2, 1.5, 0.75),
        (3, 9.0, None),
    ]


@pytest.mark.parametrize("content", ["", "step,other\n1,2\n", "step"])
def test_what_is_no_curve_begins_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(content)
    curve = Curve(path, 5)
    curve.add(done(6))
    curve.close()
    assert [point.step for point in read_curve(path)] == [6]


def test_many_points_become_few_with_their_means() -> None:
    points = [Point(step, step, float(step), step if step % 10 == 0 else None, 0.0) for step in range(1, 101)]
    few = thinned(points, 20)
    assert [point.step for point in few] == list(range(5, 101, 5))
    assert few[0].train_loss == 3.0
    assert [point.valid_loss for point in few[:2]] == [None, 10]
    assert thinned([], 20) == []


@pytest.mark.parametrize("steps", [1, 30])
def test_is_drawn(tmp_path: Path, steps: int) -> None:
    curve = Curve(tmp_path / "curve.csv", 0)
    for step in range(1, steps + 1):
        curve.add(done(step))
    curve.measured(1.0)
    curve.close()
    assert draw_curve(curve.path, tmp_path / "curve.png", "name $x$ <b>")
    assert (tmp_path / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_a_place_for_it_nothing_is_drawn_and_nothing_raised(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.csv", 0)
    curve.add(done(1))
    curve.close()
    assert not draw_curve(curve.path, tmp_path / "none" / "curve.png", "name")
