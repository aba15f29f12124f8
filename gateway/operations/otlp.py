"""Traces by OpenTelemetry, sent by OTLP over HTTP from a thread of their own. A provider a gateway, none global."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.settings import TracingSettings
from gateway.start_error import StartError
from gateway.tracing import Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_NOTE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{16})\Z")
_W3C = TraceContextTextMapPropagator()
#: The id that the next span gets: of one that another gateway began.
_next_id: ContextVar[int] = ContextVar("omniops_next_span", default=0)


class OtelTracer:
    """`gateway.tracing.Tracer`. Close it at the end."""

    def __init__(self, settings: TracingSettings) -> None:
        """Raises StartError where the extra `tracing` is not installed."""
        self._provider = _provider(settings)
        self._tracer = self._provider.get_tracer("omniops", version("omniops-kernels"))

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: str = "internal",
        carrier: Mapping[str, str] | None = None,
        note: str = "",
        started: datetime | None = None,
    ) -> Iterator[Span]:
        context = None if carrier is None else _W3C.extract(carrier)
        if known := _NOTE.match(note):
            # a root has no span above it, but its trace all the same
            above = known[3] if int(known[3], 16) else known[2]
            context = _W3C.extract({"traceparent": f"00-{known[1]}-{above}-01"})
            _next_id.set(int(known[2], 16))
        begun = None if started is None else int(started.timestamp() * 1e9)
        with self._tracer.start_as_current_span(
            name, context, _KINDS[kind], start_time=begun, record_exception=False
        ) as made:
            yield _Span(made)

    @contextmanager
    def within(self, note: str) -> Iterator[None]:
        if known := _NOTE.match(note):
            above = trace.SpanContext(
                int(known[1], 16), int(known[2], 16), True, trace.TraceFlags(trace.TraceFlags.SAMPLED)
            )
            with trace.use_span(trace.NonRecordingSpan(above)):
                yield
        else:
            yield

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier

    async def close(self) -> None:
        """Send what waits, for a moment."""
        await asyncio.to_thread(self._provider.shutdown)


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, **attributes: str | int | float) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(name.replace("__", "."), value)

    def named(self, name: str) -> None:
        self._span.update_name(name)

    def failed(self) -> None:
        self._span.set_status(Status(StatusCode.ERROR))

    @property
    def note(self) -> str:
        context, parent = self._span.get_span_context(), getattr(self._span, "parent", None)
        if not context.trace_flags.sampled:
            return ""
        above = parent.span_id if parent is not None else 0
        return f"{context.trace_id:032x}-{context.span_id:016x}-{above:016x}"

    @property
    def trace(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"


def _provider(settings: TracingSettings) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise StartError(
            f"tracing.endpoint is set, but {error.name} is not installed. Install `omniops-kernels[tracing]`."
        ) from error

    class Ids(RandomIdGenerator):
        def generate_span_id(self) -> int:
            known = _next_id.get()
            _next_id.set(0)
            return known or super().generate_span_id()

    share = TraceIdRatioBased(settings.ratio)
    provider = TracerProvider(
        # a client's flag does not make us keep more than our share
        sampler=ParentBased(share, remote_parent_sampled=share),
        resource=Resource.create({"service.name": settings.service, "service.version": version("omniops-kernels")}),
        id_generator=Ids(),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(
        str(settings.endpoint),
        headers={name: secret.get_secret_value() for name, secret in settings.headers.items()},
        timeout=settings.timeout_s,
    )
    processor = BatchSpanProcessor(
        exporter, max_queue_size=settings.queue, schedule_delay_millis=settings.pause_s * 1000
    )
    provider.add_span_processor(processor)
    return provider
