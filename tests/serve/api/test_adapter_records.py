"""What the API shows of versions that are stored, served, refused or in memory."""

from __future__ import annotations

import json

from tunechat.serve.adapters.quarantine import Quarantined
from tunechat.serve.adapters.registry import LoadedAdapter
from tunechat.serve.adapters.store import StoredAdapter
from tunechat.serve.api.adapter_records import Look, adapter_record, quarantined_record, tier, version_record
from tunechat.serve.contract.adapters import AdapterManifest, AdapterState
from tunechat.serve.contract.errors import ErrorRecord
from tunechat.serve.contract.messages import AdapterResidency
from tunechat.tests.serve.api.test_roster import version

ONE, TWO = version("a", 1, "x"), version("a", 2, "y")
STORED = StoredAdapter("a", 2, frozenset({1}), (ONE, TWO))
NOTHING = Look.of((), (), {})


def test_a_version_shows_all_of_its_manifest_but_the_format() -> None:
    record = version_record(ONE, STORED, NOTHING)
    assert {*AdapterManifest.__struct_fields__} - {"format"} <= set(record)
    assert (record["id"], record["state"], record["residency"]) == ("a@1", "stored", "disk")
    assert (record["is_current"], record["is_pinned"], record["error"]) == (False, True, None)
    assert json.loads(json.dumps(record))["targets"] == ["q_proj"]


def test_what_is_served_and_where_it_is() -> None:
    served = LoadedAdapter(TWO.ref, AdapterState.DRAINING, 3, False)
    resident = AdapterResidency(digest="y", bytes=9, slot=None, running=1, waiting=2)
    look = Look.of([served], [resident], {"a@1": ErrorRecord(code="c", message="m")})
    record = version_record(TWO, STORED, look)
    assert (record["state"], record["requests"], record["running"], record["waiting"]) == ("draining", 3, 1, 2)
    assert (record["residency"], record["memory_bytes"]) == ("host", 9)
    assert version_record(ONE, STORED, look)["error"] == {"code": "c", "message": "m"}


def test_a_name_is_in_the_state_of_its_current_version_else_of_its_liveliest() -> None:
    look = Look.of([LoadedAdapter(ONE.ref, AdapterState.LOADED, 1, False)], (), {})
    assert adapter_record(STORED, look)["state"] == "stored"
    without = StoredAdapter("a", None, frozenset(), (ONE, TWO))
    record = adapter_record(without, look)
    assert (record["state"], record["current"], record["requests"]) == ("loaded", None, 1)


def test_tiers() -> None:
    assert tier(None) == "disk"
    assert tier(AdapterResidency(digest="x", bytes=1)) == "host"
    assert tier(AdapterResidency(digest="x", bytes=1, slot=0)) == "device"


def test_quarantined() -> None:
    held = Quarantined(name="bad", error=ErrorRecord(code="c", message="m"), since=7)
    assert quarantined_record(held) == {
        "object": "adapter.quarantined", "name": "bad", "state": "quarantined", "code": "c", "message": "m", "since": 7,
    }  # fmt: skip
