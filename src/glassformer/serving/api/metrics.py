"""GET /metrics: what the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from glassformer.serving.api.service import Service
from glassformer.serving.counters import Figures, Histogram

_GAUGES = {
    "running": "requests that are being answered",
    "waiting": "requests that wait for a place",
    "streams": "requests that can be answered at once",
    "prefix_bytes": "bytes of earlier texts that are kept",
}
_COUNTERS = {
    "refused": "requests that were refused because the queue was full",
    "prompt_tokens": "tokens of prompts",
    "reused_tokens": "tokens of prompts that had been read for an earlier request",
    "reused_requests": "requests that began as an earlier one",
    "generated_tokens": "tokens that were generated",
    "failures": "errors that the engine survived",
}
_HISTOGRAMS = {
    "first_token": "seconds from a request to its first token",
    "between_tokens": "seconds from a token to the next",
    "whole": "seconds from a request to its end",
}


class Counting(Collector):
    """All models' figures, read when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """A family for each figure, with the model as its label."""
        figures = {name: served.batching.figures for name, served in self._service.all.items() if served.batching}
        yield from _gauges(figures)
        yield from _counters(figures)
        for name, about in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"glassformer_{name}_seconds", about, labels=["model"])
            for model, each in figures.items():
                told: Histogram = getattr(each, name)
                family.add_metric([model], _buckets(told), told.total)
            yield family
        work = GaugeMetricFamily("glassformer_work", "requests on or before the worker threads")
        work.add_metric([], self._service.work.running)
        yield work


def _gauges(figures: dict[str, Figures]) -> Iterator[Metric]:
    for name, about in _GAUGES.items():
        family = GaugeMetricFamily(f"glassformer_{name}", about, labels=["model"])
        for model, each in figures.items():
            family.add_metric([model], getattr(each, name))
        yield family


def _counters(figures: dict[str, Figures]) -> Iterator[Metric]:
    for name, about in _COUNTERS.items():
        family = CounterMetricFamily(f"glassformer_{name}", about, labels=["model"])
        for model, each in figures.items():
            family.add_metric([model], getattr(each, name))
        yield family
    ended = CounterMetricFamily(
        "glassformer_requests", "requests that have ended, and how", labels=["model", "outcome"]
    )
    for model, each in figures.items():
        for outcome, count in sorted(each.outcomes.items()):
            ended.add_metric([model, outcome], count)
    yield ended


def _buckets(told: Histogram) -> list[tuple[str, float]]:
    """As Prometheus counts: each bucket has those of the smaller ones too."""
    sums, seen = [], 0
    for bound, count in zip((*told.bounds, float("inf")), told.counts, strict=True):
        seen += count
        sums.append(("+Inf" if bound == float("inf") else str(bound), float(seen)))
    return sums


def add_metrics(app: FastAPI, service: Service) -> None:
    """The endpoint."""
    registry = CollectorRegistry()
    registry.register(Counting(service))

    @app.get("/metrics", tags=["server"])
    async def metrics() -> Response:
        """Counts, gauges and histograms in Prometheus's text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
