"""What a text must be: JSON Schemas, choices, regular expressions and grammars, made into one for the engine."""

from __future__ import annotations

from .requests import read_response_format, read_structured_outputs
from .schema import read_schema
from .structure import Structure

__all__ = ["Structure", "read_response_format", "read_schema", "read_structured_outputs"]
