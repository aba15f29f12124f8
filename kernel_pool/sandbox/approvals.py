"""`from servers import approvals`: writes that a person is asked about together, as one table.

    with approvals.batch("Refund 14 orders"):
        refunds = [refund_order(order_id=id, amount=amount) for id, amount in late]
    print([refund.result for refund in refunds])

Inside of the block a write is only noted down: it returns a handle. At its end all go to the broker as one call.
The module knows no way to decide anything: that is a person's, outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from .tracebacks import render, with_short_traceback

#: The broker knows the calls of a batch as one call of this name.
CALL = "approvals.batch"

#: Sends the title and the calls ({tool, args}); the outcomes, {value} or {error} each.
Send = Callable[[str, list[dict[str, Any]]], list[dict[str, Any]]]
#: An outcome's error as the exception that the call would have raised.
AsError = Callable[[Mapping[str, Any]], BaseException]


class CellPaused(BaseException):
    """A person has to decide about a call of this cell, so the cell ends here; it runs again after the decision.

    No `Exception`, so that code which catches those does not go on as if the call had failed.
    """

    _render_traceback_ = render


class Handle:
    """One write of a batch."""

    def __init__(self, tool: str, args: Mapping[str, object], as_error: AsError) -> None:
        self.tool = tool
        self.args = dict(args)
        self._as_error = as_error
        self._outcome: Mapping[str, Any] | None = None

    @property
    def state(self) -> str:
        """ "noted" inside of the block; then "done" or "failed"."""
        if self._outcome is None:
            return "noted"
        return "failed" if "error" in self._outcome else "done"

    @property
    def error(self) -> BaseException | None:
        """What the call came to, if not to a result."""
        return self._as_error(self._outcome["error"]) if self._outcome and "error" in self._outcome else None

    @property
    def result(self) -> Any:
        """What the call returned. Raises what it would have raised: ApprovalDenied, where the person refused it."""
        if self._outcome is None:
            message = f"{self.tool} has not been called: the batch is sent at the end of its block."
            raise with_short_traceback(RuntimeError(message))
        if (error := self.error) is not None:
            raise error
        return self._outcome["value"]

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        return f"<{self.tool}({told[:200]}): {self.state}>"


class Batch:
    """Collects the writes that are made inside of its block, in any thread."""

    def __init__(self, desk: Desk, title: str) -> None:
        self.title = title
        self.handles: list[Handle] = []
        self._desk = desk

    def __enter__(self) -> Batch:
        if self._desk.open is not None:
            raise with_short_traceback(RuntimeError("A batch inside of a batch: end the first one before."))
        if self.handles:
            raise with_short_traceback(RuntimeError("This batch was sent: make another one."))
        self._desk.open = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        __tracebackhide__ = True
        self._desk.open = None
        if kind is not None or not self.handles:
            return  # nothing is sent of a block that failed
        calls = [{"tool": handle.tool, "args": handle.args} for handle in self.handles]
        outcomes = self._desk.send(self.title, calls)
        for handle, outcome in zip(self.handles, outcomes, strict=True):
            handle._outcome = outcome

    def __len__(self) -> int:
        return len(self.handles)

    def __repr__(self) -> str:
        return f"<batch {self.title!r} of {len(self.handles)} calls>"


class Desk:
    """What the stubs know of batches: the one that is open, if there is one."""

    def __init__(self, send: Send, as_error: AsError) -> None:
        self.send = send
        self.open: Batch | None = None
        self._as_error = as_error

    def note(self, tool: str, args: Mapping[str, object]) -> Handle | None:
        """The handle of a write, where a batch is open."""
        batch = self.open
        if batch is None:
            return None
        handle = Handle(tool, args, self._as_error)
        batch.handles.append(handle)
        return handle

    def batch(self, title: str) -> Batch:
        """Collect the writes of a block, and have a person approve all, some or none of them.

        Each write returns a handle; after the block its `result` is what the call returned, or raises what it would
        have raised: ApprovalDenied, where the person refused it. Reads go on as always.
        """
        if not isinstance(title, str) or not title.strip():
            raise with_short_traceback(TypeError("Say what the batch is for: approvals.batch('Refund 14 orders')."))
        return Batch(self, title)
