"""What a session may call, and how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.settings import BrokerSettings
from gateway.types import Grant
from servers.errors import BudgetExceeded, ToolDenied
from servers.tool import Tool

from .journal import Row
from .spent import Spent

MIB = 1024 * 1024


def check_allowed(grant: Grant, tool: Tool) -> None:
    """A session calls what its role is named for in the tool's record.

    Raises:
        ToolDenied
    """
    if grant.role not in tool.roles:
        raise ToolDenied(
            f"{tool.name} is not for a session of role {grant.role!r}.",
            hint=f"It is for {' and '.join(tool.roles) or 'nobody'}.",
        )


#: What calls of a session that went out have taken; those that the journal answered are not counted.
SessionBudget = Spent

#: Each bound: its setting, what it bounds, a factor from the setting's unit, and how it is said.
_BOUNDS: tuple[tuple[str, str, float, Callable[[float], str]], ...] = (
    ("calls", "calls", 1, lambda n: f"{n:,} tool calls"),
    ("rows", "rows", 1, lambda n: f"{n:,} rows of results"),
    ("mb", "bytes", MIB, lambda n: f"{n / MIB:,.1f} MiB of arguments and results"),
    ("seconds", "seconds", 1, lambda n: f"{n:,.0f} s of tool calls"),
    ("dollars", "dollars", 1, lambda n: f"{n:,.4f} dollars for tool calls"),
)


def _setting(name: str, of: str) -> str:
    return f"{of}_mb" if name == "mb" else f"{name}_per_{of}"


class CellBudget:
    """What one run of a cell may spend, and has spent; its session's with it."""

    def __init__(self, settings: BrokerSettings, session: SessionBudget) -> None:
        self._settings = settings
        self._session = session
        self._limits = {
            (name, of): float(getattr(settings, _setting(name, of))) * factor
            for name, _, factor, _ in _BOUNDS
            for of in ("cell", "session")
        }
        self._cell = Spent()
        self._most = tuple(
            (spent, Spent(*(self._limits[name, of] for name, _, _, _ in _BOUNDS)), of)  # type: ignore[arg-type]
            for spent, of in ((self._cell, "cell"), (session, "session"))
        )

    def take_call(self) -> None:
        """Count one call, before anything is done about it.

        Raises:
            BudgetExceeded: something is used up already; with what was spent.
        """
        for spent, most, of in self._most:
            if (
                spent.calls >= most.calls
                or spent.rows >= most.rows
                or spent.bytes >= most.bytes
                or spent.seconds >= most.seconds
                or spent.dollars >= most.dollars
            ):
                raise self._exceeded(self._used_up(of), of)
        self._cell.calls += 1

    def take_fresh_call(self) -> None:
        """The call goes out: the session's calls are counted here, so that answers from the journal cost none."""
        self._session.calls += 1

    def take_bytes(self, count: int) -> None:
        """Count arguments, a result or a part of one.

        Raises:
            BudgetExceeded: with what was spent.
        """
        for spent, _, _ in self._most:
            spent.bytes += count
        for spent, most, of in self._most:
            if spent.bytes > most.bytes:
                raise self._exceeded("mb", of)

    def take_rows(self, count: int) -> None:
        """Count the rows of a result, or of a part of one.

        Raises:
            BudgetExceeded: with what was spent.
        """
        for spent, _, _ in self._most:
            spent.rows += count
        for spent, most, of in self._most:
            if spent.rows > most.rows:
                raise self._exceeded("rows", of)

    def take_seconds(self, seconds: float) -> None:
        """Count time, which is over: the next call finds that there is none left."""
        for spent, _, _ in self._most:
            spent.seconds += seconds

    def take_dollars(self, dollars: float) -> None:
        """Count money, which is spent: the next call finds that there is none left."""
        for spent, _, _ in self._most:
            spent.dollars += dollars

    def take_up(self, row: Row) -> None:
        """Count a call that the cell made under another gateway. The session's budget has it from the journal."""
        seconds = (row.ended - row.started).total_seconds() if row.ended else 0.0
        self._cell.add(Spent(1, row.result_rows, row.result_bytes, seconds, row.cost))

    @property
    def spent(self) -> Mapping[str, float]:
        """By what and of whom: `calls_in_cell`, `dollars_in_session`."""
        return {
            f"{attribute}_in_{of}": round(getattr(spent, attribute), 6)
            for _, attribute, _, _ in _BOUNDS
            for spent, of in ((self._cell, "cell"), (self._session, "session"))
        }

    def _used_up(self, of: str) -> str:
        """The first bound that is."""
        spent = self._cell if of == "cell" else self._session
        return next(name for name, attribute, _, _ in _BOUNDS if getattr(spent, attribute) >= self._limits[name, of])

    def _exceeded(self, name: str, of: str) -> BudgetExceeded:
        _, attribute, _, words = next(bound for bound in _BOUNDS if bound[0] == name)
        spent = words(getattr(self._cell if of == "cell" else self._session, attribute))
        setting = _setting(name, of)
        limit = getattr(self._settings, setting)
        hints = {"calls": "Go on in another cell.", "seconds": "Go on in another cell."}
        hint = hints.get(name, "Ask for less at once, or go on in another cell.") if of == "cell" else ""
        return BudgetExceeded(
            f"The budget {setting} of {limit:,} is used up: {spent} in this {of}.",
            hint=hint,
            data={"budget": setting, "limit": limit, **self.spent},
        )
