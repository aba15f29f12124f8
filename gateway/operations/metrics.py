"""What is counted as it happens. Each gateway has a registry of its own; what there is at the moment is in `gauges`.

No label has a value of a client's making: routes are templates, and of tenants, tools and models only so many are told
apart (`Few`).
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from gateway.agent.types import TurnResult
from gateway.settings import MetricsSettings, ModelSettings
from gateway.tokens import Prices
from gateway.types import Boundary, CallRecord, CellRun, Grant

OTHER = "other"

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Few:
    """The values of a label that come first; `other` for those after `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class Metrics:
    """One gateway's."""

    def __init__(self, settings: MetricsSettings, model: ModelSettings) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._prices = Prices.from_settings(model)
        self.tenant, self._tool, self._model = Few(settings.tenants), Few(settings.tools), Few(settings.models)
        self._make_http()
        self.cells = self._counter("cells", "Cells that ended", "tenant", "outcome")
        self.cell_seconds = self._histogram("cell_seconds", "Time of cells in their kernels")
        self.calls = self._counter(
            "tool_calls", "Tool calls that the journal has", "server", "tool", "effect", "outcome"
        )
        self.call_seconds = self._histogram("tool_call_seconds", "Time of tool calls", "server")
        self.turns = self._counter("turns", "Turns of the agent", "tenant", "reason")
        self.tokens = self._counter("model_tokens", "Tokens of the model", "tenant", "model", "kind")
        self.dollars = self._counter("model_dollars", "Their price in US dollars", "tenant", "model")
        self.leases = self._counter("pool_leases", "Kernels asked for", "profile", "outcome")
        self.lease_seconds = self._histogram("pool_lease_seconds", "Time until a kernel was leased", "profile")
        self.lag = self._histogram("event_loop_lag_seconds", "How late the event loop wakes", buckets=_LAG)

    def _make_http(self) -> None:
        self.requests = self._counter("http_requests", "HTTP requests answered", "method", "route", "status")
        self.request_seconds = self._histogram(
            "http_request_seconds", "Time until they were answered whole", "method", "route"
        )
        self.under_way = Gauge("omniops_http_requests_under_way", "HTTP requests under way", registry=self.registry)
        self.refused = self._counter("http_refused", "Requests and websockets turned away unread", "reason")
        self.websockets = Gauge("omniops_websockets", "Websockets that are open", registry=self.registry)
        self.closed = self._counter("websockets_closed", "Websockets that ended", "code")

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"omniops_{name}", f"{what}.", labels, registry=self.registry)

    def _histogram(self, name: str, what: str, *labels: str, buckets: Sequence[float] = _FAST) -> Histogram:
        return Histogram(f"omniops_{name}", f"{what}.", labels, registry=self.registry, buckets=buckets)

    # -- what others tell --

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request that was answered. `route`: its template, "" for none."""
        method = method if method in _METHODS else OTHER
        self.requests.labels(method, route or "none", str(status)).inc()
        self.request_seconds.labels(method, route or "none").observe(seconds)

    def ran(self, grant: Grant, run: CellRun) -> None:
        """A cell that ended."""
        self.cells.labels(self.tenant(grant.tenant), run.result.status).inc()
        self.cell_seconds.observe(max(0.0, (run.result.ended - run.result.started).total_seconds()))

    async def observe(self, boundary: Boundary, record: CallRecord) -> None:
        """An observer of the broker."""
        if boundary != "after":
            return
        name = self._tool(record.tool)
        server = name.partition(".")[0]
        self.calls.labels(server, name, record.effect, record.state).inc()
        if record.started is not None and record.ended is not None:
            self.call_seconds.labels(server).observe(max(0.0, (record.ended - record.started).total_seconds()))

    def turned(self, tenant: str, model: str, result: TurnResult) -> None:
        """A turn of the agent that ended. What the endpoint reported counts; where it says nothing, our own count."""
        tenant, model = self.tenant(tenant), self._model(model)
        self.turns.labels(tenant, result.reason).inc()
        for request in result.tokens.requests:
            said = request.reported
            cached = said.cached if said else request.cached
            entering, leaving = (said.input, said.output) if said else (request.input, request.output)
            for kind, count in (("input", entering - cached), ("cached", cached), ("output", leaving)):
                self.tokens.labels(tenant, model, kind).inc(max(0, count))
            price = self._prices
            cost = max(0, entering - cached) * price.input + cached * price.cached + leaving * price.output
            self.dollars.labels(tenant, model).inc(max(0.0, cost / 1_000_000))

    def leased(self, profile: str, outcome: str, seconds: float) -> None:
        """A lease that was given, or not. `profile`: a configured one."""
        self.leases.labels(profile, outcome).inc()
        if outcome == "leased":
            self.lease_seconds.labels(profile).observe(seconds)
