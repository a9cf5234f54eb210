"""One question from standard input, one answer to standard output."""

from __future__ import annotations

import os
import sys
import traceback

import msgspec

from ...serve.contract.errors import ConfigError, ErrorRecord, InvalidRequest, TunechatError
from ...serve.contract.inquiry import (
    AnyAnswer,
    AnyQuestion,
    AskCheck,
    AskPreview,
    AskRecipe,
    AskRecipes,
    Refused,
)
from .naming import renamed

MOST_ASKED = 64 << 20
_LONGEST_TOLD = 2_000


def main() -> int:
    """Answers. Gives the exit status: 0 for any answer, 1 where there is none because of a defect."""
    # What libraries print must not come between.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = sys.stdin.buffer.read(MOST_ASKED + 1)
    try:
        reply = _reply(asked)
    except MemoryError:
        reply = _refused(_too_costly("This takes more memory than a check may have"))
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return 1
    out.write(reply)
    out.close()
    return 0


def answer(question: AnyQuestion) -> AnyAnswer:
    """The answer. Raises TunechatError where there is none."""
    match question:
        case AskRecipe():
            from .recipes import complete

            return complete(question.recipe, question.entry)
        case AskRecipes():
            from .recipes import all_ready_made

            return all_ready_made()
        case AskCheck():
            from .checking import check_data

            return check_data(question)
        case AskPreview():
            from .previewing import preview_data

            return preview_data(question)


def _reply(asked: bytes) -> bytes:
    if len(asked) > MOST_ASKED:
        return _refused(_too_costly(f"The question has more than {MOST_ASKED >> 20} MiB"))
    try:
        question = msgspec.json.decode(asked, type=AnyQuestion)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        told = f"this is no question: {' '.join(str(error).split())[:_LONGEST_TOLD]}"
        return _refused(InvalidRequest(told).record)
    reply: AnyAnswer
    try:
        reply = answer(question)
    except TunechatError as error:
        reply = Refused(error=_record(error))
    return msgspec.json.encode(renamed(msgspec.to_builtins(reply), question.names))


def _record(error: TunechatError) -> ErrorRecord:
    """The error as a request's own: what the command line calls a wrong configuration is the asker's here."""
    record = error.record
    message = record.message[:_LONGEST_TOLD]
    if isinstance(error, ConfigError):
        return ErrorRecord(code="invalid_value", message=message, http_status=400, param=record.param)
    return msgspec.structs.replace(record, message=message)


def _refused(error: ErrorRecord) -> bytes:
    return msgspec.json.encode(Refused(error=error))


def _too_costly(what: str) -> ErrorRecord:
    return InvalidRequest(f"{what}; split the file.", code="too_costly").record
