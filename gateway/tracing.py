"""Spans of what happens, from a request through its cell to the tools that it calls; free where tracing is off.

Which tracer is in force goes with the context, as the current span does: a task that is started has both. What is
traced by is in `gateway.operations.otlp`; nothing of OpenTelemetry's SDK is loaded without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol


class Span(Protocol):
    """What happens now."""

    def set(self, **attributes: str | int | float) -> None:
        """Add what is known of it; `__` in a name stands for a dot."""

    def named(self, name: str) -> None: ...

    def failed(self) -> None: ...

    @property
    def note(self) -> str:
        """By which another gateway goes on with the span; "" for none."""

    @property
    def trace(self) -> str:
        """The trace's id, hexadecimal; "" for none."""


class Tracer(Protocol):
    """Makes spans."""

    def span(
        self,
        name: str,
        *,
        kind: str = "internal",
        carrier: Mapping[str, str] | None = None,
        note: str = "",
        started: datetime | None = None,
    ) -> AbstractContextManager[Span]:
        """A span below the current one. `carrier`: headers that may name a parent. `note`: of a span that another
        gateway began and cannot end, with when it `started`."""

    def within(self, note: str) -> AbstractContextManager[None]:
        """Spans that are made inside are below the one of `note`, which another gateway began."""

    def headers(self) -> dict[str, str]:
        """For requests that go out: by them the receiver's spans are below the current one."""


class _Nothing(AbstractContextManager[Span]):
    note = trace = ""

    def set(self, **attributes: str | int | float) -> None: ...
    def named(self, name: str) -> None: ...
    def failed(self) -> None: ...
    def __enter__(self) -> Span:
        return self

    def __exit__(self, *of: object) -> None:
        return None


NOTHING = _Nothing()
_tracer: ContextVar[Tracer | None] = ContextVar("omniops_tracer", default=None)


@contextmanager
def tracing_by(tracer: Tracer | None) -> Iterator[None]:
    """Inside, and in tasks that are started there, spans are made by `tracer`; None: none are."""
    token = _tracer.set(tracer)
    try:
        yield
    finally:
        _tracer.reset(token)


def span(
    name: str,
    *,
    kind: str = "internal",
    carrier: Mapping[str, str] | None = None,
    note: str = "",
    started: datetime | None = None,
) -> AbstractContextManager[Span]:
    """As `Tracer.span`; where tracing is off, nothing."""
    tracer = _tracer.get()
    if tracer is None:
        return NOTHING
    return tracer.span(name, kind=kind, carrier=carrier, note=note, started=started)


def within(note: str) -> AbstractContextManager[None]:
    """As `Tracer.within`; where tracing is off, nothing."""
    tracer = _tracer.get()
    return nullcontext() if tracer is None else tracer.within(note)


def headers() -> dict[str, str]:
    """As `Tracer.headers`; {} where tracing is off."""
    tracer = _tracer.get()
    return {} if tracer is None else tracer.headers()
