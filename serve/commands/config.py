"""`tunechat config`: what is set, where it was set, and what could be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..settings import ENVIRONMENT_PREFIX, Settings, config_path, load
from .options import Json
from .output import print_json, print_table

app = typer.Typer(help="Show the settings and where they come from.", no_args_is_help=True)


@app.command("show")
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Tell which layer set each value.")] = False,
    json: Json = False,
) -> None:
    """Show every setting. Keys are counted, never shown."""
    configuration = load()
    shown = {name: _shown(configuration.settings, name) for name in Settings.model_fields}
    if json:
        print_json(
            {name: {"value": value, "origin": configuration.origins[name]} for name, value in shown.items()}
            if origin
            else shown
        )
        return
    rows = [(name, _text(value), configuration.origins[name]) for name, value in shown.items()]
    if origin:
        print_table(("setting", "value", "origin"), rows)
    else:
        print_table(("setting", "value"), [row[:2] for row in rows])


@app.command("path")
def path() -> None:
    """Print where the configuration file is looked for."""
    typer.echo(config_path())


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    print_json(Settings.model_json_schema())


@app.command("docs")
def docs() -> None:
    """Print the reference of all settings as Markdown."""
    typer.echo(reference(), nl=False)


def reference() -> str:
    """The Markdown table of every setting: key, variable, default, bounds, meaning."""
    lines = ["| setting | variable | default | bounds | meaning |", "|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (f"`{name}`", f"`{ENVIRONMENT_PREFIX}{name.upper()}`", _default(name, field), _bounds(field))
        meaning = (field.description or "").replace("|", "\\|")
        lines.append("| " + " | ".join((*cells, meaning)) + " |")
    return "\n".join(lines) + "\n"


def _shown(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    if name in {"api_keys", "admin_keys", "tool_policies"}:
        return f"{len(value)} hidden" if value else []
    if isinstance(value, SecretStr):
        return "hidden"
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)


def _default(name: str, field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "the platform's data folder"
    default = field.default
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return f"`{default}`" if default not in ((), "", None, {}) else "empty"


def _bounds(field: FieldInfo) -> str:
    low = next((item.ge for item in field.metadata if hasattr(item, "ge")), None)
    high = next((item.le for item in field.metadata if hasattr(item, "le")), None)
    return "" if low is None or high is None else f"{low} to {high}"
