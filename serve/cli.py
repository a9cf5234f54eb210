"""The `tunechat` command. Each sub-command is a module of `commands`, whose heavy imports happen only when it runs.

Exit codes: 0 done, 1 it failed, 2 the command line, the configuration or the environment must be mended,
130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from .commands import config, doctor, models, ps, pull, run, serve
from .contract.errors import ConfigError, TunechatError
from .settings import SettingsError

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
app.command("pull")(pull.pull)
app.add_typer(models.app, name="models")
app.command("ps")(ps.ps)
app.command("doctor")(doctor.doctor)
app.add_typer(config.app, name="config")


def main() -> None:
    """Runs the command line and exits; errors that tunechat knows are one line on stderr."""
    # Only `serve` logs. Elsewhere what goes wrong is the one line below, not also each step on the way to it.
    logging.getLogger("tunechat").addHandler(logging.NullHandler())
    try:
        app()
    except (SettingsError, ConfigError) as error:
        _fail(str(error), 2)
    except TunechatError as error:
        _fail(error.message, 1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def _fail(message: str, code: int) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)
