"""Where adapters act: every matrix that the forward multiplies with, and the linear modules that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..base.architecture import Decoder

MATRICES_OF_A_LAYER = 4


@dataclass(frozen=True, slots=True)
class Site:
    """A matrix [rows, columns] of the base under the name of its entry.

    `modules` maps the linear modules that it holds, under the names that PEFT knows them by, to the row at which each
    begins.
    """

    name: str
    rows: int
    columns: int
    modules: Mapping[str, int]


def compact_sites(decoder: Decoder, vocab_size: int) -> tuple[Site, ...]:
    """The sites of the compact forward: four of each layer, in the order in which they run, then the head."""
    d = decoder
    sites = []
    for i in range(d.layers):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        queries = {f"{attention}.q_proj": 0, f"{attention}.k_proj": d.query_size}
        queries[f"{attention}.v_proj"] = d.query_size + d.kv_size
        gates = {f"{mlp}.gate_proj": 0, f"{mlp}.up_proj": d.intermediate_size}
        sites += [
            Site(f"{attention}.qkv_proj", d.query_size + 2 * d.kv_size, d.hidden_size, queries),
            Site(f"{attention}.o_proj", d.hidden_size, d.query_size, {f"{attention}.o_proj": 0}),
            Site(f"{mlp}.gate_up_proj", 2 * d.intermediate_size, d.hidden_size, gates),
            Site(f"{mlp}.down_proj", d.hidden_size, d.intermediate_size, {f"{mlp}.down_proj": 0}),
        ]
    return (*sites, Site("lm_head", vocab_size, d.hidden_size, {"lm_head": 0}))


def plain_sites(linears: Mapping[str, tuple[int, int]]) -> tuple[Site, ...]:
    """One site for each linear module, where the forward keeps them apart."""
    return tuple(Site(name, rows, columns, {name: 0}) for name, (rows, columns) in linears.items())
