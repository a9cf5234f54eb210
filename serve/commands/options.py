"""Command-line options that several commands share. Their texts come from the settings that they override."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..settings import Settings, flag_name


def setting_option(name: str, metavar: str | None = None) -> Any:
    """The option for setting `name`. Values stay text: the settings parse and bound them, with one message for all."""
    text = Settings.model_fields[name].description
    return typer.Option(flag_name(name), help=text, metavar=metavar or name.upper(), show_default=False)


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, setting_option("url")]
ApiKey = Annotated[
    list[str] | None, typer.Option("--api-key", help="Key to send to the server.", metavar="KEY", show_default=False)
]
Quant = Annotated[str | None, setting_option("quant", "auto|int4|nf4|none")]
Device = Annotated[str | None, setting_option("device", "auto|cpu|cuda")]
Threads = Annotated[str | None, setting_option("threads", "N")]
MaxContext = Annotated[str | None, setting_option("max_context", "TOKENS")]
CacheBytes = Annotated[str | None, setting_option("cache_bytes", "BYTES")]
Model = Annotated[str | None, typer.Argument(help=Settings.model_fields["model"].description, show_default=False)]
