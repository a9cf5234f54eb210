"""The root of the command line: its sub-commands, each a module whose heavy imports happen only when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    adapters,
    agent,
    config,
    data,
    data_preview,
    doctor,
    jobs,
    models,
    ps,
    pull,
    recipes,
    run,
    serve,
    tools,
    train,
)

app = typer.Typer(
    name="tunechat",
    help="One shared base model, many LoRA adapters, one OpenAI-compatible server.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tunechat {version('tunechat')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command("serve")(serve.serve)
app.command("run")(run.run)
app.command("agent")(agent.agent)
app.command("pull")(pull.pull)
app.add_typer(models.app, name="models")
app.add_typer(adapters.app, name="adapters")
data.app.command("preview")(data_preview.preview)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.command("train")(train.train)
app.add_typer(jobs.app, name="jobs")
app.command("ps")(ps.ps)
app.command("doctor")(doctor.doctor)
app.add_typer(tools.app, name="tools")
app.add_typer(config.app, name="config")
