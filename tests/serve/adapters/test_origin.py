"""Where an adapter came from: another model is refused, what cannot be checked is a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.adapters.origin import MANIFEST, check_origin, read_origin
from tunechat.serve.contract.adapters import AdapterOrigin
from tunechat.serve.contract.base import BaseManifest
from tunechat.serve.contract.errors import BaseModelMismatch, InvalidAdapter


def stated(folder: Path, content: Any) -> AdapterOrigin:
    (folder / MANIFEST).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_origin(folder, "d1", "some/base")


def test_without_a_manifest(tmp_path: Path) -> None:
    assert read_origin(tmp_path, "d1", "some/base") == AdapterOrigin(base="some/base")


def test_reads_ours(tmp_path: Path) -> None:
    origin = stated(
        tmp_path,
        {"source_fingerprint": "s", "weights_fingerprint": "w", "digest": "d1", "metrics": {"loss": 1.5}, "x": 1},
    )
    assert origin == AdapterOrigin(source_fingerprint="s", weights_fingerprint="w", metrics={"loss": 1.5})


@pytest.mark.parametrize("content", [{"name": "another tool's"}, {"source_fingerprint": "s", "digest": "d2"}])
def test_a_manifest_of_something_else_says_nothing(tmp_path: Path, content: Any) -> None:
    assert stated(tmp_path, content).source_fingerprint is None


@pytest.mark.parametrize("content", ["{", "[]", {"source_fingerprint": 5}, {"source_fingerprint": "s", "metrics": []}])
def test_a_broken_manifest_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InvalidAdapter):
        stated(tmp_path, content)


def test_another_model_is_refused(base: BaseManifest) -> None:
    with pytest.raises(BaseModelMismatch) as caught:
        check_origin(AdapterOrigin(source_fingerprint="other", base="other/model"), base)
    assert caught.value.code == "base_model_mismatch" and caught.value.http_status == 422
    assert "other/model" in caught.value.message and base.name in caught.value.message


def test_warnings(base: BaseManifest) -> None:
    def warnings(**origin: Any) -> tuple[str, ...]:
        return check_origin(AdapterOrigin(**origin), base)

    same = {"source_fingerprint": base.source_fingerprint, "weights_fingerprint": base.weights_fingerprint}
    assert warnings(**same) == () == warnings(**same, template_hash=base.template_hash)
    (warning,) = warnings(base="x/y")
    assert "cannot be checked" in warning and "x/y" in warning
    (warning,) = warnings(**same | {"weights_fingerprint": "other"})
    assert "another quantisation" in warning
    (warning,) = warnings(source_fingerprint=base.source_fingerprint)
    assert "not known" in warning
    (warning,) = warnings(**same, template_hash="other")
    assert "template" in warning
