"""`tunechat train`: from files of examples to an adapter that answers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..contract.errors import ConfigError
from ..settings import load
from .options import ApiKey


def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders or patterns with examples (PATH=2 counts twice), a recipe (.yml, .toml), and "
            "KEY=VALUE over it, such as lr=1e-4.",
            metavar="FILE|RECIPE|KEY=VALUE...",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The adapter's name, by which requests ask for it.", show_default=False)
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option("--validation", help="Files to measure on; may be repeated.", metavar="FILE", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A ready-made recipe (`tunechat recipes list`).", metavar="NAME"),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The base model. Default: the one that is served.", metavar="MODEL")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Let this job go on instead of a new one.", metavar="ID")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the job's id and leave the training to the server.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option("--server", "--url", help="The running server to train on.", metavar="URL", show_default=False),
    ] = None,
    api_key: ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Print the events, and the job, a JSON object a line.")] = False,
) -> None:
    """Train an adapter from examples in any common format, and watch it learn.

    A running server does it, beside the requests that it answers; where none runs, a private one is started.

    When it is done, requests that ask for NAME are answered by what was learned. Ctrl-C asks what is to become of it.
    """
    keys = api_key or None
    settings = load({"url": url, "api_keys": keys, "admin_keys": keys}).settings
    from .train_run import Training
    from .train_words import sort_words, whole_recipe

    training = Training(settings, detach=detach, as_json=json)
    if resume is not None:
        if words or name or validation or recipe:
            raise ConfigError("--resume takes a job as it is: leave out everything else, or train anew without it")
        training.resume(resume, model)
        return
    flags: dict[str, Any] = {"name": name, "validation": validation or None, "model": model}
    training.start(whole_recipe(sort_words(words or ()), recipe, flags))
