"""The one error tree. Every error that a user may see names what is wrong and how to mend it."""

from __future__ import annotations

import msgspec


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it travels between processes and in HTTP bodies: never a path, a class name or a trace."""

    code: str
    message: str
    http_status: int = 500
    param: str | None = None
    retry_after: int | None = None


class TunechatError(Exception):
    """Base of all errors that tunechat raises on purpose.

    `code` is stable and machine-readable, `http_status` is what the API answers with, `param` names the offending
    field, `retry_after` is in seconds.
    """

    code = "internal_error"
    http_status = 500

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.retry_after: int | None = None

    @property
    def record(self) -> ErrorRecord:
        return ErrorRecord(
            code=self.code,
            message=self.message,
            http_status=self.http_status,
            param=self.param,
            retry_after=self.retry_after,
        )

    @staticmethod
    def from_record(record: ErrorRecord) -> TunechatError:
        """The error that `record` describes, as the class of the operator's errors or of its HTTP status."""
        kind = _BY_CODE.get(record.code) or _BY_STATUS.get(record.http_status, TunechatError)
        error = kind(record.message, param=record.param, code=record.code)
        error.http_status = record.http_status
        error.retry_after = record.retry_after
        return error


class InvalidRequest(TunechatError):
    """The request itself is wrong; sending it again cannot help."""

    code = "invalid_request"
    http_status = 400


class Unsupported(InvalidRequest):
    """A field that this server knows and does not do."""

    code = "unsupported"


class InvalidSample(InvalidRequest):
    """A sample that cannot be learned from. The message begins with its place, `param` names the field."""

    code = "invalid_sample"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and completion do not fit. Carries both numbers in its message; nothing is ever cut.

    Where the prompt alone is too long, `prompt_tokens` and `context_length` are set.
    """

    code = "context_length_exceeded"
    prompt_tokens = 0
    context_length = 0


class Unauthorized(TunechatError):
    code = "invalid_api_key"
    http_status = 401


class Forbidden(TunechatError):
    code = "forbidden"
    http_status = 403


class NotFound(TunechatError):
    code = "not_found"
    http_status = 404


class ModelNotFound(NotFound):
    code = "model_not_found"


class Conflict(TunechatError):
    """Something else of that name is being changed or used; trying again later may help."""

    code = "conflict"
    http_status = 409


class NameTaken(Conflict):
    """The name is somebody else's, and stays so; trying again does not help."""

    code = "name_taken"


class PayloadTooLarge(TunechatError):
    code = "payload_too_large"
    http_status = 413


class InvalidAdapter(TunechatError):
    """An adapter whose content is wrong: tensors, shapes, numbers or modules. Nothing of it was installed."""

    code = "invalid_adapter"
    http_status = 422


class UnsupportedFormat(InvalidAdapter):
    """An adapter of a kind or a file format that is not read: another tuner, a pickle, an unknown option."""

    code = "unsupported_format"


class BaseModelMismatch(InvalidAdapter):
    """An adapter that was made for another base model than the one served."""

    code = "base_model_mismatch"


class InvalidData(InvalidRequest):
    """Data for training whose content is wrong.

    The message names the place, the field, what is wrong and how to mend it; so do the attributes, for programs.
    `line` counts from 1 and is 0 where the file as a whole is meant. `kind` sorts problems and is stable.
    """

    code = "invalid_data"
    http_status = 400

    def __init__(self, what: str, mend: str, *, file: str, line: int = 0, field: str = "", kind: str = "field") -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {f'{field}: ' if field else ''}{what}; {mend}", param=field or None)
        self.what = what
        self.mend = mend
        self.file = file
        self.line = line
        self.field = field
        self.kind = kind


class Overloaded(TunechatError):
    """The queue is full; `retry_after` says when to come back, in seconds."""

    code = "overloaded"
    http_status = 429

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 1
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after = retry_after


class Unavailable(TunechatError):
    """The engine is starting, draining or dead."""

    code = "unavailable"
    http_status = 503

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: int = 2
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after = retry_after


class EngineFailed(Unavailable):
    """The engine died while it worked on this request."""

    code = "engine_failed"


class AdapterCapacity(Unavailable):
    """Every place for an adapter is taken by one that is in use or pinned."""

    code = "adapter_capacity"


class ConfigError(TunechatError):
    """Settings, flags or files that the operator must mend. The command line prints it in one line and exits with 2."""

    code = "config_error"


class ModelError(TunechatError):
    """A model that cannot be fetched, read, quantised or served; says which part of it and why."""

    code = "model_error"


_BY_CODE: dict[str, type[TunechatError]] = {kind.code: kind for kind in (ConfigError, ModelError)}
_BY_STATUS: dict[int, type[TunechatError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    422: InvalidAdapter,
    429: Overloaded,
    503: Unavailable,
}
