"""Output of a thread goes to the cell that started it, however late it comes.

Stock ipykernel gives it to whichever cell was the last to begin. Threads of executors stay with that: they are started
once, and work for all cells.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol


class _Shell(Protocol):
    def get_parent(self) -> Any: ...

    def set_thread_parent(self, parent: Any) -> Any: ...


def belong_to_their_cells(shell: _Shell) -> None:
    """Have all threads that are started from now on remember the request that was handled then."""
    start = threading.Thread.start

    def start_for_cell(thread: threading.Thread) -> None:
        target = getattr(thread, "_target", None)
        if getattr(target, "__module__", None) == "concurrent.futures.thread":
            start(thread)
            return
        parent, run = shell.get_parent(), thread.run

        def run_for_cell() -> None:
            del thread.run  # it would keep the thread in memory
            shell.set_thread_parent(parent)
            run()

        thread.run = run_for_cell  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = start_for_cell  # type: ignore[method-assign, assignment]
