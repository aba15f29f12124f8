"""Logs of the gateway: to stderr, one line an event, without secrets; libraries' loggers end in the same place."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from gateway.broker.scrub import Scrubber

#: Libraries that log every request at "info": what they do is in our own log or in nobody's interest.
_LOUD = ("httpx", "httpcore", "openai", "asyncio", "psycopg.pool", "uvicorn.access")


def configure(level: str, scrubber: Scrubber, form: Literal["text", "json"] = "text") -> None:
    """Set up structlog and the standard library's logging for this process.

    Each line has the ids of what it is about: request, trace, tenant, session, cell, call.
    """
    number = logging.getLevelNamesMapping()[level.upper()]

    def scrub(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: scrubber.text(value) if isinstance(value, str) else value for key, value in event.items()}

    colours = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        scrub,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    last: Processor = structlog.dev.ConsoleRenderer(colors=colours)
    if form == "json":
        last = structlog.processors.JSONRenderer(ensure_ascii=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # uvicorn takes a refused websocket for a mistake of ours
    logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing handshake" not in str(record.msg))
    for name in _LOUD:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
