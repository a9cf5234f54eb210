"""What running trainers hold, for /metrics: their processes, memory and steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import psutil  # type: ignore[import-untyped]
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ...adapters.tuned_names import job_digits
from ...jobs.job import Job, Status

_LABELS = ("job", "pid")


class Trainers(Protocol):
    """The jobs and their processes, as far as metrics are concerned."""

    counts: Mapping[Status, int]
    running: Mapping[str, Job]

    @property
    def processes(self) -> Mapping[str, int]: ...


class TrainerCollector(Collector):
    """Jobs by status, and of each trainer its memory and how far it is. Jobs are named by the short form of their id.

    The pages of the base that a trainer maps are the engine's too: `own_bytes` leaves them out.
    """

    def __init__(self, trainers: Trainers) -> None:
        self._trainers = trainers

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("tunechat_jobs", "Fine-tuning jobs.", labels=("status",))
        for status, count in self._trainers.counts.items():
            jobs.add_metric((str(status),), count)
        yield jobs
        step = self._gauge("step", "Steps of the optimizer that are done.")
        steps = self._gauge("steps", "Steps that there will be.")
        resident = self._gauge("resident_bytes", "Memory of a trainer's processes, pages that others map too included.")
        own = self._gauge("own_bytes", "Memory of a trainer's processes that nobody else has.")
        for id_, guard in self._trainers.processes.items():
            pid, resident_bytes, own_bytes = memory_below(guard)
            labels = (job_digits(id_), str(pid))
            resident.add_metric(labels, resident_bytes)
            own.add_metric(labels, own_bytes)
            if (job := self._trainers.running.get(id_)) is not None:
                step.add_metric(labels, job.progress.step)
                steps.add_metric(labels, job.progress.steps)
        yield from (step, steps, resident, own)

    @staticmethod
    def _gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"tunechat_trainer_{name}", text, labels=_LABELS)


def memory_below(guard: int, process: Callable[[int], psutil.Process] = psutil.Process) -> tuple[int, int, int]:
    """The trainer under `guard`, the resident bytes of it and all that it has started, and those not shared."""
    pid, resident, own = guard, 0, 0
    with contextlib.suppress(psutil.Error):
        above = process(guard)
        for child in above.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                memory = child.memory_info()
                resident += memory.rss
                own += max(0, memory.rss - getattr(memory, "shared", 0))
                if child.ppid() == guard and pid == guard:
                    pid = child.pid
    return pid, resident, own
