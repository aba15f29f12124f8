"""What there is at the moment: asked for when somebody reads `/metrics`, at no cost else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import psycopg
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout

from gateway.savings import Saving
from kernel_pool.pool import ProfileStatus

if TYPE_CHECKING:
    from gateway.runtime import Gateway

log = structlog.get_logger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_WAITING = "SELECT count(*)::int AS n FROM approval WHERE state = 'pending'"


async def exposition(gateway: Gateway) -> bytes:
    """Everything, in Prometheus's text format. Figures of a database that does not answer in time are left out."""
    approvals: int | None = None
    savings: tuple[Saving, ...] = ()
    with contextlib.suppress(TimeoutError, PoolTimeout, psycopg.Error):
        async with asyncio.timeout(gateway.settings.metrics.query_s):
            row = await gateway.database.fetch_one(_WAITING)
            approvals = None if row is None else row["n"]
            savings = await gateway.savings.day()
    moment = CollectorRegistry()
    moment.register(_Moment(gateway, approvals, savings))
    return generate_latest(gateway.metrics.registry) + generate_latest(moment)


@dataclass(eq=False)
class _Moment(Collector):
    gateway: Gateway
    approvals: int | None
    savings: tuple[Saving, ...]

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _pool(self.gateway)
        counts = self.gateway.sessions.counts()
        yield _gauge("sessions", "Sessions that this gateway has in hand.", "kernel", counts.sessions)
        yield _gauge("cells_now", "Cells that run, and that wait for the one before.", "state", counts.cells)
        yield _gauge("database_connections", "Connections to the database.", "state", self.gateway.database.counts())
        if self.approvals is not None:
            waiting = {"": float(self.approvals)}
            yield _gauge("approvals_waiting", "Calls that wait for a person, of all gateways.", "", waiting)
        yield from _savings(self.gateway, self.savings)
        ready = {name: 0.0 if why else 1.0 for name, why in self.gateway.readiness.latest.items()}
        yield _gauge("ready", "Whether a condition of /readyz held when it was last asked.", "condition", ready)
        yield _gauge("draining", "Whether the gateway is about to stop.", "", {"": float(self.gateway.drain.begun)})
        yield _gauge("info", "The gateway's version.", "version", {version("omniops-kernels"): 1.0})


def _savings(gateway: Gateway, savings: tuple[Saving, ...]) -> Iterator[Metric]:
    """Of all gateways, in the last day; both ways side by side, so that a graph shows either and their difference."""
    labels = ["tenant", "workload", "way"]
    tokens = GaugeMetricFamily("omniops_day_tokens", "Tokens of the last 24 hours, had or reckoned.", labels=labels)
    cost = GaugeMetricFamily("omniops_day_cost", "What they cost, in savings.currency.", labels=labels)
    sums: dict[tuple[str, str, str], list[float]] = {}
    for each in savings:
        ways = {"cells": (each.tokens, each.cost), "direct": (each.direct_tokens, each.direct_cost)}
        for way, values in ways.items():
            told = sums.setdefault((gateway.metrics.tenant(each.tenant), each.workload, way), [0.0, 0.0])
            told[:] = [a + b for a, b in zip(told, values, strict=True)]
    for key, (counted, paid) in sums.items():
        tokens.add_metric(key, counted)
        cost.add_metric(key, paid)
    yield from (tokens, cost)


def _gauge(name: str, what: str, label: str, values: dict[str, float] | dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"omniops_{name}", what, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([key] if label else [], value)
    return family


def _pool(gateway: Gateway) -> Iterator[Metric]:
    status = gateway.pool.status()
    yield _gauge("pool_maximum", "Kernels that may live at once.", "", {"": status.maximum})
    kernels = GaugeMetricFamily("omniops_pool_kernels", "Kernels by what they do.", labels=["profile", "state"])
    for name, each in status.profiles.items():
        for state, count in _states(each).items():
            kernels.add_metric([name, state], count)
    yield kernels
    draining = {profile: each.draining for profile, each in status.profiles.items()}
    yield _gauge("pool_draining", "Of the leased ones, those of older generations.", "profile", draining)
    for name, what in (
        ("waiting", "Leases that wait for a kernel."),
        ("target", "Ready kernels that are wanted now."),
        ("leases_per_s", "Leases per second, smoothed: the demand."),
        ("refill_s", "Time until a kernel that was taken is replaced, smoothed."),
    ):
        values = {profile: float(getattr(each, name)) for profile, each in status.profiles.items()}
        yield _gauge(f"pool_{name}", what, "profile", values)
    failing = {profile: float(bool(each.problem)) for profile, each in status.profiles.items()}
    yield _gauge("pool_failing", "Whether the last start of a kernel failed.", "profile", failing)
    for name, what in (("started", "Kernels that were started."), ("died", "Kernels that ended unasked.")):
        counter = CounterMetricFamily(f"omniops_pool_{name}", what, labels=["profile"])
        for profile, each in status.profiles.items():
            counter.add_metric([profile], getattr(each, name))
        yield counter


def _states(each: ProfileStatus) -> dict[str, int]:
    """Each kernel counts once."""
    return {
        "ready": each.ready,
        "leased": each.leased - each.frozen,
        "frozen": each.frozen,
        "starting": each.starting,
    }
