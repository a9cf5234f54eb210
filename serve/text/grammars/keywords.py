"""The keywords of JSON Schema (2020-12): those that a grammar enforces, and those that it cannot."""

from __future__ import annotations

from typing import Final

SCHEMA: Final = "schema"
SCHEMAS: Final = "schemas"
NAMED_SCHEMAS: Final = "named schemas"
COUNT: Final = "count"
NUMBER: Final = "number"

ENFORCED: dict[str, str] = {
    "type": "type",
    "enum": "enum",
    "const": "const",
    "$ref": "reference",
    "pattern": "pattern",
    "format": "format",
    "required": "required",
    "properties": NAMED_SCHEMAS,
    "patternProperties": NAMED_SCHEMAS,
    "$defs": NAMED_SCHEMAS,
    "definitions": NAMED_SCHEMAS,
    "additionalProperties": SCHEMA,
    "items": SCHEMA,
    "prefixItems": SCHEMAS,
    "anyOf": SCHEMAS,
    "oneOf": SCHEMAS,
    "allOf": SCHEMAS,
    "minLength": COUNT,
    "maxLength": COUNT,
    "minItems": COUNT,
    "maxItems": COUNT,
    "minProperties": COUNT,
    "maxProperties": COUNT,
    "minimum": NUMBER,
    "maximum": NUMBER,
    "exclusiveMinimum": NUMBER,
    "exclusiveMaximum": NUMBER,
    "multipleOf": NUMBER,
}

# They restrict values in ways that the grammar does not follow, with the way out.
REFUSED: dict[str, str] = {
    "not": "list what is allowed instead, with enum or anyOf",
    "if": "write the cases as anyOf",
    "contains": "say with items what every item is",
    "minContains": "say with items what every item is",
    "maxContains": "say with items what every item is",
    "uniqueItems": "leave it out, and check for repetitions afterwards",
    "additionalItems": "use prefixItems and items",
    "dependencies": "write the cases as anyOf",
    "dependentRequired": "write the cases as anyOf",
    "dependentSchemas": "write the cases as anyOf",
    "propertyNames": "use patternProperties with additionalProperties false",
    "unevaluatedItems": "use items",
    "unevaluatedProperties": "use additionalProperties",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
}
# Values of the above that restrict nothing.
IDLE: dict[str, tuple[object, ...]] = {
    "uniqueItems": (False,),
    "unevaluatedItems": (True,),
    "unevaluatedProperties": (True,),
    "additionalItems": (True,),
    "propertyNames": (True, {}),
    "minContains": (0,),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
}

TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
