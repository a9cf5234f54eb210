"""What is counted of each adapter. A version that is gone takes its numbers along, so labels do not pile up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Summary
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..adapters.registry import LoadedAdapter
from ..contract.adapters import AdapterState
from .adapter_records import tier
from .events import Usage
from .ports import Engine

_KINDS = ("prompt", "cached_prompt", "completion")

Served = Callable[[], tuple[LoadedAdapter, ...]]


class AdapterMetrics:
    """Requests, tokens and waiting times by version. A request that uses several counts for each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "tunechat_adapter_requests", "Requests that used the adapter.", ("adapter",), registry=registry
        )
        self._tokens = Counter(
            "tunechat_adapter_tokens", "Tokens of its requests.", ("adapter", "kind"), registry=registry
        )
        self._first_token = Summary(
            "tunechat_adapter_first_token_seconds",
            "Time from a request's submission to its first token: waiting, loading and reading the prompt.",
            ("adapter",),
            registry=registry,
        )
        self._known: set[str] = set()

    def request_done(self, adapters: Iterable[str], usage: Usage, first_token: float | None) -> None:
        for adapter in adapters:
            self._known.add(adapter)
            self._requests.labels(adapter).inc()
            counts = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
            for kind, count in zip(_KINDS, counts, strict=True):
                self._tokens.labels(adapter, kind).inc(count)
            if first_token is not None:
                self._first_token.labels(adapter).observe(first_token)

    def forget(self, adapter: str) -> None:
        """Drops what was counted of a version."""
        if adapter in self._known:
            self._known.remove(adapter)
            self._requests.remove(adapter)
            self._first_token.remove(adapter)
            for kind in _KINDS:
                self._tokens.remove(adapter, kind)


class ResidencyCollector(Collector):
    """Where adapters are, read at each scrape. Versions that never left the disk have no line of their own."""

    def __init__(self, engine: Engine, served: Served) -> None:
        self._engine = engine
        self._served = served

    def collect(self) -> Iterator[Metric]:
        served = self._served()
        stats = self._engine.stats
        resident = {one.digest: one for one in stats.adapters}
        moves = {one.digest: one for one in stats.adapter_moves}
        states = GaugeMetricFamily("tunechat_adapters", "Versions by state.", labels=("state",))
        for state in (AdapterState.LOADED, AdapterState.LOADING, AdapterState.DRAINING):
            states.add_metric([str(state)], sum(one.state is state for one in served))
        yield states
        place = GaugeMetricFamily(
            "tunechat_adapter_resident",
            "Adapters in memory: on the device, or on the host.",
            labels=("adapter", "tier"),
        )
        size = GaugeMetricFamily("tunechat_adapter_bytes", "Memory that an adapter takes.", labels=("adapter",))
        loads = CounterMetricFamily(
            "tunechat_adapter_loads", "Times that an adapter was read from disk.", labels=("adapter",)
        )
        evictions = CounterMetricFamily(
            "tunechat_adapter_evictions", "Times that an adapter had to leave memory for others.", labels=("adapter",)
        )
        for identity, digest in sorted({(one.ref.id, one.ref.digest) for one in served}):
            found = resident.get(digest)
            if found is not None:
                place.add_metric([identity, tier(found)], 1)
                size.add_metric([identity], found.bytes)
            moved = moves.get(digest)
            if moved is not None:
                loads.add_metric([identity], moved.loads)
                evictions.add_metric([identity], moved.evictions)
        yield from (place, size, loads, evictions)
