"""Which folders of the server's own disk a request may name, and which not."""

from __future__ import annotations

from pathlib import Path

from ..contract.errors import Forbidden, InvalidRequest, NotFound
from .settings import ApiSettings

_PARAM = "lora_path"


def named_folder(text: str, settings: ApiSettings) -> Path:
    """The folder that a request names, links followed. Nothing is looked at before it is known to be allowed.

    With `adapter_paths` it must lie below one of them. Without, only a server that asks for no key and listens on
    loopback reads any folder: whoever asks is on this machine. Raises Forbidden, InvalidRequest, NotFound.
    """
    roots = settings.adapter_paths
    if not roots and not (settings.is_open and not settings.is_public and not settings.admin_keys):
        raise Forbidden(
            "This server reads no folders by path; upload the adapter, or let the operator set 'adapter_paths'.",
            param=_PARAM,
            code="path_not_allowed",
        )
    path = Path(text)
    if "\0" in text or not path.is_absolute() or ".." in path.parts:
        raise InvalidRequest("'lora_path' is the absolute path of a folder on the server's disk.", param=_PARAM)
    try:
        folder = path.resolve()
        allowed = not roots or any(folder.is_relative_to(root.resolve()) for root in roots)
        if allowed and folder.is_dir():
            return folder
    except (OSError, RuntimeError, ValueError) as error:
        raise NotFound("There is no such folder.", param=_PARAM) from error
    if not allowed:
        raise Forbidden("'lora_path' is not below a folder that may be read.", param=_PARAM, code="path_not_allowed")
    raise NotFound("There is no such folder.", param=_PARAM)
