"""How a job goes, from its events."""

from __future__ import annotations

from tunechat.serve.commands.jobs_course import Course

from .tuning_server import a_training, message, metrics, step


def course_of(*events: dict[str, object]) -> Course:
    course = Course()
    for event in events:
        course.take(event)
    return course


def test_a_training_from_its_events() -> None:
    course = course_of(*a_training())
    assert (course.step, course.steps, course.loss, course.measured) == (4, 4, 1.0, 2.5)
    assert course.training == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)] and course.validation == [(2, 2.5)]
    assert course.tokens_per_second == 200 and course.memory == 1 << 30 and course.rate == 1e-4
    assert course.remaining == 0


def test_what_is_left_follows_from_the_speed_of_late_steps() -> None:
    course = course_of(metrics("Training 8 rows in 100 steps", recipe={}), step(1, 3.0))
    assert course.remaining == 99 * 0.5
    for number in range(2, 51):
        course.take({**step(number, 1.0), "data": {**step(number, 1.0)["data"], "seconds": 2.0}})
    assert 90 < (course.remaining or 0) <= 100


def test_steps_that_are_told_again_after_a_resume_count_once() -> None:
    course = course_of(*(step(number, 3.0) for number in (1, 2, 3)), metrics("v", step=3, valid_loss=9.0))
    for event in (step(2, 1.0), step(3, 0.5), metrics("v", step=3, valid_loss=1.0)):
        course.take(event)
    assert course.training == [(1, 3.0), (2, 1.0), (3, 0.5)] and course.validation == [(3, 1.0)]


def test_what_is_not_known_changes_nothing() -> None:
    course = course_of(
        message("In 7 steps to happiness"),
        metrics("x", step=True, train_loss=1.0),
        metrics("x", step=1, train_loss=float("nan")),
        metrics("x", step="1", train_loss=2.0),
        {"message": None, "data": ["step"]},
        {},
    )
    assert course == Course()
