"""How schemathesis judges answers, wherever it runs."""

from __future__ import annotations

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.config._checks import NEGATIVE_DATA_REJECTION_EXPECTED_STATUSES

# A wrong request may also be too slow, too large, or have too large a head, and those are found first. Arrays of arrays
# that are all one item too long make bodies of many megabytes.
_REFUSALS = [*NEGATIVE_DATA_REJECTION_EXPECTED_STATUSES, "408", "413", "431"]

# A zip is bytes like any others.
schemathesis.serializer.alias("application/zip", "application/octet-stream")

CONFIG = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": _REFUSALS}}})
