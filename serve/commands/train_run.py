"""One training from the command line: sent to a server, watched there, and its end told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..contract.errors import ConfigError
from ..settings import Settings
from .jobs_course import Course
from .jobs_server import JsonObject, ServerJobs
from .train_attend import ask_terminal, attend, signals_interrupt
from .train_data import READING_KEYS, Parcels, parcels
from .train_end import failure, leave, rest_line, success_lines
from .train_follow import Follower, View
from .train_server import found_server
from .train_view import JsonView, print_line, shown

if TYPE_CHECKING:
    from ...trainer.recipe import Recipe
    from .server import Server

_HISTORY = 20_000
# Keys that the body of a job has fields of its own for.
_FIELDS = frozenset({"data", "validation", "model", "name", "seed"})


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is watched, on which server, and what is known of it: its `course` by the event `last`."""

    jobs: ServerJobs
    id: str
    is_private: bool
    course: Course = field(default_factory=Course)
    last: str | None = None
    told: Callable[[str], str] = str
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """How a training is run: by which settings, watched or not, and told in words or as JSON."""

    settings: Settings
    detach: bool
    as_json: bool

    def start(self, recipe: Recipe) -> None:
        """Trains by this recipe. Raises what the data, the server or the training itself fails with."""
        with parcels(recipe) as sent, self._server(recipe.model) as (server, is_private):
            jobs = ServerJobs(server)
            job = sent_job(jobs, sent, recipe, recipe.model or _models(server)[0])
            self._say(job, f"{job['id']}: learning {sent.training.name} on {job.get('model')}")
            prompt = recipe.prompts[0] if recipe.prompts else None
            self._watch(Job(jobs, str(job["id"]), is_private, told=sent.told, prompt=prompt))

    def resume(self, id_: str, model: str | None) -> None:
        """Lets a job go on, and watches it. Raises likewise."""
        with self._server(model) as (server, is_private):
            jobs = ServerJobs(server)
            _check_base(str(jobs.show(id_).get("model")), _models(server))
            course, last = Course(), None
            for event in jobs.events(id_, _HISTORY):
                course.take(event)
                last = str(event.get("id"))
            job = jobs.act(id_, "resume")
            self._say(job, f"{id_}: goes on after step {course.step}")
            self._watch(Job(jobs, id_, is_private, course, last))

    @contextmanager
    def _server(self, model: str | None) -> Iterator[tuple[Server, bool]]:
        with signals_interrupt(), found_server(self.settings, model, may_start=not self.detach) as found:
            yield found

    def _watch(self, job: Job) -> None:
        if self.detach:
            return
        follower = Follower(job.jobs, job.id, after=job.last)
        found, interrupted = attend(
            follower, job.jobs, job.id, lambda: self._view(job.course), is_private=job.is_private, ask=ask_terminal
        )
        if self.as_json:
            print_line(found)
        match found.get("status"):
            case "succeeded":
                self._print(
                    *success_lines(
                        found, job.course, url=self.settings.url, is_private=job.is_private, prompt=job.prompt
                    )
                )
            case "failed":
                raise failure(found, job.told)
            case _:
                print(rest_line(found, is_private=job.is_private), file=sys.stderr)
                raise leave(interrupted)

    @contextmanager
    def _view(self, course: Course) -> Iterator[View]:
        if self.as_json:
            yield JsonView()
        else:
            with shown(course) as view:
                yield view

    def _say(self, job: JsonObject, line: str) -> None:
        """The job, as JSON, as its id alone when nobody watches it, or in words."""
        if self.as_json:
            print_line(job)
        else:
            self._print(str(job["id"]) if self.detach else line)

    def _print(self, *lines: str) -> None:
        if not self.as_json:
            print(*lines, sep="\n", flush=True)


def _models(server: Server) -> list[str]:
    """What is served, the base first."""
    return [str(model["id"]) for model in server.get("/v1/models")["data"]]


def _check_base(model: str, served: Sequence[str]) -> None:
    """Raises ConfigError for a job that would wait for ever, since another base is served."""
    if model not in served:
        raise ConfigError(f"the job learns on {model}, and {served[0]} is served; serve {model}, or name it by --model")


def sent_job(jobs: ServerJobs, sent: Parcels, recipe: Recipe, model: str) -> JsonObject:
    """The job that a server makes of the data and the recipe. Files of a job that is refused do not stay there."""
    files: list[str] = []
    try:
        for parcel in filter(None, (sent.training, sent.validation)):
            files.append(jobs.add_file(parcel.path, parcel.name))
        return jobs.create(_body(recipe, model, files, are_joined=sent.are_joined))
    except BaseException:
        for file in files:
            jobs.drop_file(file)
        raise


def _body(recipe: Recipe, model: str, files: list[str], *, are_joined: bool) -> JsonObject:
    """OpenAI's body, with the keys that were given, and no others, as `recipe`: the rest is chosen where it runs."""
    elsewhere = _FIELDS | (set(READING_KEYS) if are_joined else set())
    given = recipe.model_dump(mode="json", include=set(recipe.chosen - elsewhere))
    body: JsonObject = {"model": model, "training_file": files[0], "recipe": given}
    if len(files) > 1:
        body["validation_file"] = files[1]
    if "name" in recipe.chosen:
        body["suffix"] = recipe.name
    if "seed" in recipe.chosen:
        body["seed"] = recipe.seed
    return body
