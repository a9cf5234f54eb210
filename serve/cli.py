"""The `tunechat` command. It imports next to nothing before it can answer Ctrl-C.

Exit codes: 0 done, 1 it failed, 2 the command line, the configuration or the environment must be mended,
130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits; errors that tunechat knows are one line on stderr."""
    try:
        _run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run() -> None:
    import logging

    from .commands import root
    from .contract.errors import ConfigError, TunechatError
    from .settings import SettingsError

    # Only `serve` logs. Elsewhere what goes wrong is the one line below, not also each step on the way to it.
    logging.getLogger("tunechat").addHandler(logging.NullHandler())
    try:
        root.app()
    except (SettingsError, ConfigError) as error:
        _fail(str(error), 2)
    except TunechatError as error:
        _fail(error.message, 1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def _fail(message: str, code: int) -> None:
    # What a message quotes may come from a file, and a terminal obeys control characters.
    printable = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(message.split())
    )
    print(f"error: {printable}", file=sys.stderr)
    raise SystemExit(code)
