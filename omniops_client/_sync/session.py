# Made of omniops_client/_async by `make client`. Do not change it here.
"""One session: its cells, its files, its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from omniops_client import core, requests
from omniops_client._sync.files import Files
from omniops_client._sync.http import Http
from omniops_client.errors import OmniopsError
from omniops_client.requests import Request
from omniops_client.types import Cancelled, CellEvent, CellResult, CellState, Finished, SessionInfo


class Session:
    """A session of a gateway. As a context manager it ends the session; else it lives on until `end`."""

    def __init__(self, http: Http, info: SessionInfo) -> None:
        self._http = http
        #: As the gateway saw it last.
        self.info = info
        #: Its work folder.
        self.files = Files(http, info.id)

    @property
    def id(self) -> str:
        return self.info.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.info.tenant}, {self.info.state}>"

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def run(
        self,
        code: str,
        *,
        on_output: Callable[[str], object] | None = None,
        check: bool = False,
        cell_id: str | None = None,
        deadline_s: float | None = None,
    ) -> CellResult:
        """Run a cell, after those that are under way, and wait for its end.

        `on_output` gets what it shows, as it shows it. `cell_id` of a cell that ran before, with the same code, runs
        that cell again: what it changed is not changed twice. A lost connection is taken up again where it broke.

        Raises:
            CellFailed: with `check`, the cell did not end well; else its result says so.
            SessionLost, SessionEnded, RateLimited, and other OmniopsError
        """
        for event in self.stream(code, cell_id=cell_id, deadline_s=deadline_s):
            if isinstance(event, Finished):
                return event.result.check_ok() if check else event.result
            if on_output is not None:
                on_output(event.text)
        raise AssertionError("unreachable: a stream ends with its cell, or raises")

    def stream(self, code: str, *, cell_id: str | None = None, deadline_s: float | None = None) -> Iterator[CellEvent]:
        """Run a cell and give what it shows as `Output`, at last `Finished`. Raises as `run`.

        Who stops listening does not stop the cell: `cancel` does.
        """
        cell = cell_id or requests.new_cell_id()
        run = requests.run_cell(self.id, code, cell, deadline_s)
        for event in self._events(cell, run, again=cell_id is not None):
            yield event

    def follow(self, cell: str) -> Iterator[CellEvent]:
        """As `stream`, of a cell that was asked for before, by anybody: from its first output on.

        Raises:
            NotFound: it was never begun.
            OmniopsError
        """
        for event in self._events(cell, None):
            yield event

    def _events(self, cell: str, run: Request[CellResult] | None, *, again: bool = False) -> Iterator[CellEvent]:
        """`run` asks for the cell; with `again` it may have run before, and would be found as it ended then."""
        request = run or requests.follow_cell(self.id, cell, "")
        last, failures = "", 0
        while True:
            try:
                with self._http.events(request) as events:
                    for event in events:
                        last, failures = event.id or last, 0
                        told = core.cell_event(event, self._http.options.url)
                        if told is not None:
                            yield told
                        if isinstance(told, Finished):
                            return
                raise core.StreamBroken(f"The stream of cell {cell} broke.")
            except OmniopsError as problem:
                unknown = run is not None and request is not run and core.begun_nowhere(problem)
                failures += not unknown
                if failures > self._http.options.retries or not (unknown or core.may_repeat(problem, True)):
                    raise
                pause_s = 0.0 if unknown else core.pause_s(failures, problem)
            time.sleep(pause_s)
            anew = run is not None and (unknown or (again and not last))
            request = run if run is not None and anew else requests.follow_cell(self.id, cell, last)

    def cells(self) -> list[CellState]:
        """The cells that were begun, in order, without their results."""
        return self._http.call(requests.list_cells(self.id))

    def cell(self, cell: str) -> CellState:
        """One cell, and what its last run came to. Raises NotFound."""
        return self._http.call(requests.get_cell(self.id, cell))

    def cancel(self, cell: str) -> Cancelled:
        """Give a cell up: one that waits never runs, one that runs is interrupted. Raises NotFound."""
        return self._http.call(requests.cancel_cell(self.id, cell))

    def interrupt(self) -> bool:
        """Interrupt the cell that runs. False where none ran, or it goes on all the same."""
        return bool((self._http.call(requests.interrupt(self.id)))["interrupted"])

    def restart(self) -> None:
        """A new kernel with an empty namespace; what runs ends. What cells changed stays changed."""
        self.info = self._http.call(requests.restart(self.id))

    def restore(self) -> list[CellResult]:
        """A new kernel with the variables that finished cells made: they run again, their tool calls do not."""
        results = self._http.call(requests.restore(self.id))
        self.refresh()
        return results

    def refresh(self) -> SessionInfo:
        """Ask how the session is."""
        self.info = self._http.call(requests.get_session(self.id))
        return self.info

    def end(self) -> None:
        """End the session and its kernel. Its transcript stays. Safe to call again."""
        self._http.call(requests.end_session(self.id))
