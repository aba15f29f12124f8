"""Whether there are traces, and what requests to tools' stores say of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from gateway.settings import TracingSettings
from gateway.tracing import Tracer, headers

Hooks = dict[str, list[Callable[[httpx.Request], Awaitable[None]]]]


@asynccontextmanager
async def open_tracer(settings: TracingSettings) -> AsyncIterator[Tracer | None]:
    """None where tracing is off: then nothing of it is loaded. Raises StartError."""
    if settings.endpoint is None:
        yield None
        return
    from gateway.operations.otlp import OtelTracer  # nobody else needs it

    tracer = OtelTracer(settings)
    try:
        yield tracer
    finally:
        await tracer.close()


def upstream_hooks(settings: TracingSettings) -> Hooks:
    """For an HTTP client of tools: each request names the trace that it belongs to."""
    return {"request": [_pass_on]} if settings.endpoint is not None and settings.upstream else {}


async def _pass_on(request: httpx.Request) -> None:
    request.headers.update(headers())
