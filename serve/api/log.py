"""Logs as one JSON object a line, on stderr. Prompts, answers, keys and headers are never among the fields."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

from ..contract.errors import TunechatError

# Loggers of libraries that would print requests or bodies at their lower levels.
_QUIET = ("uvicorn", "uvicorn.error", "uvicorn.access", "sse_starlette", "asyncio", "httptools")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One line a record: time, level, logger, message and the `extra` fields.

    Of an exception it writes the class and where it was raised. Its text is left out, because it may quote what a user
    sent; our own errors never do.
    """

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, trace = record.exc_info
            line["exception"] = kind.__name__
            if isinstance(error, TunechatError):
                line["reason"] = error.message
            line["where"] = _frames(trace)
        return json.dumps(line, ensure_ascii=False, default=repr)


def _frames(trace: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends this package's logs, and the warnings of libraries, to `stream` (stderr) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger("tunechat")
    ours.handlers = [handler]
    ours.setLevel(level.upper())
    ours.propagate = False
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers = [handler] if "." not in name else []
        logger.setLevel(logging.WARNING)
        logger.propagate = "." in name
