"""Prometheus metrics of one server, in a registry of their own; the engine's gauges are read at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .adapter_metrics import AdapterMetrics, ResidencyCollector, Served
from .events import Usage
from .ports import Engine

CONTENT_TYPE = CONTENT_TYPE_LATEST

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 30, 60)
_NEXT_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.3, 2.6)


class Metrics:
    """What the gateway counts, and the text that Prometheus scrapes."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "tunechat_requests", "Requests answered.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "tunechat_request_seconds",
            "Time from a request's first byte to its answer's last.",
            ("route",),
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._first_token = Histogram(
            "tunechat_first_token_seconds",
            "Time from a request's submission to its first token.",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=self._registry,
        )
        self._next_token = Histogram(
            "tunechat_next_token_seconds",
            "Time between the tokens of one sequence.",
            buckets=_NEXT_TOKEN_BUCKETS,
            registry=self._registry,
        )
        self._tokens = Counter("tunechat_tokens", "Tokens read and written.", ("kind",), registry=self._registry)
        self._tool_calls = Counter(
            "tunechat_tool_calls", "Calls of tools that the server ran.", ("tool", "status"), registry=self._registry
        )
        build = Info("tunechat_build", "What is running.", registry=self._registry)
        build.info({"version": version})
        self._registry.register(_EngineCollector(engine))
        self._engine = engine
        self._adapters = AdapterMetrics(self._registry)
        self.forget_adapter = self._adapters.forget

    def request_done(self, route: str, method: str, status: int, seconds: float) -> None:
        method = method if method in _METHODS else "OTHER"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_usage(self, usage: Usage) -> None:
        self._tokens.labels("prompt").inc(usage.prompt_tokens)
        self._tokens.labels("cached_prompt").inc(usage.cached_tokens)
        self._tokens.labels("completion").inc(usage.completion_tokens)

    def count_adapters(self, adapters: Iterable[str], usage: Usage, first_token: float | None) -> None:
        self._adapters.request_done(adapters, usage, first_token)

    def watch_adapters(self, served: Served) -> None:
        """Reports, at each scrape, where the adapters are that `served` gives."""
        self._registry.register(ResidencyCollector(self._engine, served))

    def watch(self, collector: Collector) -> None:
        """Reports, at each scrape, what `collector` gives."""
        self._registry.register(collector)

    def tool_called(self, tool: str, status: str) -> None:
        self._tool_calls.labels(tool, status).inc()

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def next_tokens(self, seconds: float, count: int) -> None:
        for _ in range(count):
            self._next_token.observe(seconds / count)

    def render(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """The engine's own numbers, as of its last heartbeat. Counters restart with it, as Prometheus expects."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine, stats = self._engine, self._engine.stats
        gauges: dict[str, tuple[str, float]] = {
            "ready": ("Whether the engine takes requests.", int(engine.is_ready)),
            "running": ("Sequences that generate.", stats.running),
            "waiting": ("Sequences that wait for room.", stats.waiting),
            "blocks": ("Blocks of the cache of keys and values.", stats.blocks_total),
            "blocks_used": ("Blocks that running sequences hold.", stats.blocks_used),
            "blocks_cached": ("Blocks kept for prompts to come.", stats.blocks_cached),
            "running_grammars": ("Sequences that generate, and follow a grammar.", stats.running_grammars),
            "resident_bytes": ("Memory of the engine's process.", stats.resident_bytes),
        }
        counters: dict[str, tuple[str, float]] = {
            "steps": ("Steps of the engine.", stats.steps),
            "prompt_tokens": ("Prompt tokens of admitted sequences.", stats.prompt_tokens),
            "cached_prompt_tokens": ("Prompt tokens found in the cache.", stats.cached_prompt_tokens),
            "generated_tokens": ("Tokens generated.", stats.generated_tokens),
            "preemptions": ("Times that a sequence gave its blocks back.", stats.preemptions),
            "aborted": ("Sequences aborted.", stats.aborted),
            "busy_seconds": ("Time spent in steps.", stats.busy_seconds),
            "adapter_loads": ("Adapters read from disk.", stats.adapter_loads),
            "adapter_installs": ("Adapters moved into a slot.", stats.adapter_installs),
            "adapter_evictions": ("Adapters that had to leave memory for others.", stats.adapter_evictions),
            "grammars_compiled": ("Grammars compiled.", stats.grammars_compiled),
            "grammars_reused": ("Sequences whose grammar was compiled before.", stats.grammars_reused),
            "grammars_refused": ("Sequences whose grammar could not be used.", stats.grammars_refused),
            "grammar_compile_seconds": ("Time spent compiling grammars.", stats.grammar_compile_seconds),
            "late_masks": ("Tokens that waited for their grammar's mask.", stats.late_masks),
            "restarts": ("Engines started after one that died.", engine.restarts),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"tunechat_engine_{name}", text, value=value)
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"tunechat_engine_{name}", text, value=value)
