"""Tracebacks of tool errors end at the cell's own line: the frames of this folder say nothing to the cell's author."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TypeVar

_HERE = str(Path(__file__).parent)

E = TypeVar("E", bound=BaseException)


def render(error: BaseException) -> list[str]:
    """IPython asks an exception's `_render_traceback_` for its lines; this gives the usual ones, less our frames."""
    from IPython import get_ipython

    tb = error.__traceback__
    lines: list[str] = get_ipython().InteractiveTB.structured_traceback(type(error), error, _without_our_frames(tb))
    return lines


def with_short_traceback(error: E) -> E:
    """For an exception whose class is not ours."""
    error._render_traceback_ = lambda: render(error)  # type: ignore[attr-defined]
    return error


def _without_our_frames(traceback: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_HERE):
            kept.append(traceback)
        traceback = traceback.tb_next
    shorter: TracebackType | None = None
    for entry in reversed(kept):
        shorter = TracebackType(shorter, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return shorter
