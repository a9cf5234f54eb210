"""`tunechat jobs`: the fine-tuning jobs of a running server, or of the home folder while none runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..contract.errors import NotFound
from ..settings import load
from .options import ApiKey, Json, Url
from .output import print_json

if TYPE_CHECKING:
    from .jobs_access import Jobs

app = typer.Typer(help="List, follow, cancel, pause and resume trainings.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The job's id.", metavar="ID")]
OptionalId = Annotated[str | None, typer.Argument(help="The job's id. Default: the latest.", metavar="[ID]")]

_ALL_EVENTS = 20_000


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, from the latest on.")] = 20,
    url: Url = None,
    api_key: ApiKey = None,
    json: Json = False,
) -> None:
    """List the jobs, the latest first."""
    with _jobs(url, api_key) as (jobs, _):
        found = jobs.listing(limit)
    if json:
        print_json(found)
        return
    from .jobs_view import print_jobs

    if not found:
        typer.echo("no jobs yet; `tunechat train FILE` makes one", err=True)
        return
    print_jobs(found)


@app.command("show")
def show(id: OptionalId = None, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Show a job, its checkpoints and its learning curve."""
    from .jobs_course import Course

    with _jobs(url, api_key) as (jobs, _):
        job = _job(jobs, id)
        checkpoints = jobs.checkpoints(job["id"])
        events = [] if json else jobs.events(job["id"], _ALL_EVENTS)
    if json:
        print_json({**job, "checkpoints": checkpoints})
        return
    from .jobs_view import print_job

    course = Course()
    for event in events:
        course.take(event)
    print_job(job, checkpoints, course)


@app.command("logs")
def logs(
    id: OptionalId = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=_ALL_EVENTS, help="How many events, up to the latest.")
    ] = 100,
    url: Url = None,
    api_key: ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Print what happened to a job."""
    with _jobs(url, api_key) as (jobs, _):
        from .train_follow import Follower
        from .train_view import JsonView, LogView

        id = str(_job(jobs, id)["id"])
        view = JsonView() if json else LogView()
        last = None
        for event in jobs.events(id, limit):
            view.event(event)
            last = str(event["id"])
        if follow:
            Follower(jobs, id, after=last).follow(view)


@app.command("cancel")
def cancel(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """End a job for good. What it has learned since its last checkpoint is lost."""
    _act(id, "cancel", url, api_key, json)


@app.command("pause")
def pause(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Stop a job after its next checkpoint, which it writes at once, until it is resumed."""
    _act(id, "pause", url, api_key, json)


@app.command("resume")
def resume(id: Id, url: Url = None, api_key: ApiKey = None, json: Json = False) -> None:
    """Let a paused job go on from its checkpoint."""
    _act(id, "resume", url, api_key, json)


def _act(id_: str, action: str, url: str | None, api_key: list[str] | None, as_json: bool) -> None:
    with _jobs(url, api_key) as (jobs, is_served):
        job = jobs.act(id_, action)
    if as_json:
        print_json(job)
    else:
        print(f"{job['id']} is {job['status']}{_afterthought(action, job, is_served)}")


def _afterthought(action: str, job: dict[str, Any], is_served: bool) -> str:
    if (action, job["status"]) == ("pause", "running"):
        return "; it will be paused when its checkpoint is written"
    if action == "resume" and not is_served:
        return f"; the next `tunechat serve` goes on with it, or `tunechat train --resume {job['id']}` at once"
    return ""


def _job(jobs: Jobs, id_: str | None) -> dict[str, Any]:
    """The job of that id, or the latest."""
    if id_ is not None:
        return jobs.show(id_)
    latest = jobs.listing(1)
    if not latest:
        raise NotFound("there are no jobs yet; `tunechat train FILE` makes one")
    return latest[0]


def _jobs(url: str | None, api_key: list[str] | None) -> AbstractContextManager[tuple[Jobs, bool]]:
    settings = load({"url": url, "api_keys": api_key or None, "admin_keys": api_key or None}).settings
    from .jobs_access import reached_jobs

    return reached_jobs(settings)
