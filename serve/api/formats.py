"""The shape that a request wants its text to have, in whichever of the fields it says so."""

from __future__ import annotations

from dataclasses import dataclass

from ..contract.errors import InvalidRequest
from ..text.grammars import Structure, read_response_format, read_structured_outputs
from .schemas.sampling import GUIDED, SamplingFields


@dataclass(frozen=True, slots=True)
class Format:
    """A shape, and the field of the request that asks for it."""

    structure: Structure
    field: str


def read_format(body: SamplingFields) -> Format | None:
    """What `response_format`, `structured_outputs` or one of the older `guided_...` asks for; None for any text.

    Raises InvalidRequest, with the path of the field, for what cannot be held and for more than one of them. Takes
    milliseconds for large schemas: not for an event loop.
    """
    found = [Format(structure, "response_format")] if (structure := read_response_format(body.response_format)) else []
    if structure := read_structured_outputs(body.structured_outputs):
        found.append(Format(structure, "structured_outputs"))
    for kind in GUIDED:
        if structure := _guided(body, kind):
            found.append(Format(structure, f"guided_{kind}"))
    if len(found) > 1:
        fields = " and ".join(f"'{one.field}'" for one in found)
        raise InvalidRequest(f"Send one of {fields}.", param=found[1].field)
    return found[0] if found else None


def _guided(body: SamplingFields, kind: str) -> Structure | None:
    try:
        return read_structured_outputs({kind: getattr(body, f"guided_{kind}")}, "guided")
    except InvalidRequest as error:
        error.param = (error.param or "").replace(f"guided.{kind}", f"guided_{kind}", 1)
        raise
