"""The matrices that adapters can change are those that the base says it has."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tunechat.serve.base.architecture import decoder_of
from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.prepare import prepare
from tunechat.serve.engine.sites import MATRICES_OF_A_LAYER, compact_sites, plain_sites
from tunechat.tests.tiny_models import make_tiny


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_compact_sites_hold_every_linear_module_at_its_rows(family: str, tmp_path: Path) -> None:
    folder = prepare(
        str(make_tiny(tmp_path / "source", family)),
        quant="none",
        home=tmp_path / "home",
        report=lambda stage, part: None,
    )
    entry = BaseEntry.open(folder)
    decoder = decoder_of(entry.config)
    sites = compact_sites(decoder, entry.manifest.vocab_size)
    assert len(sites) == MATRICES_OF_A_LAYER * decoder.layers + 1
    found = {}
    for site in sites:
        starts = [*site.modules.values(), site.rows]
        for name, (start, end) in zip(site.modules, pairwise(starts), strict=True):
            found[name] = (end - start, site.columns)
        if entry.has(site.name):
            weight = entry.weight(site.name)
            assert (weight.rows, weight.columns) == (site.rows, site.columns)
    assert found == entry.manifest.linears


def test_plain_sites_are_the_modules_themselves() -> None:
    (site,) = plain_sites({"model.layers.0.mlp.fc1": (8, 4)})
    assert (site.name, site.rows, site.columns, site.modules) == (
        "model.layers.0.mlp.fc1",
        8,
        4,
        {"model.layers.0.mlp.fc1": 0},
    )
