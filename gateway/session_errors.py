"""What sessions refuse, in words for people; `code` is for programs, `hint` says what to do."""

from __future__ import annotations

import errno


class SessionError(Exception):
    code = "session_error"
    hint = ""


class SessionNotFound(SessionError):
    code = "session_not_found"
    hint = "GET /v1/sessions lists them."

    def __init__(self, session: str) -> None:
        super().__init__(f"There is no session {session[:64]!r}.")


class CellNotFound(SessionError):
    code = "cell_not_found"
    hint = "A cell that still waited when its gateway ended was never begun: run it, under the same id if you like."

    def __init__(self, session: str, cell: str) -> None:
        super().__init__(f"Session {session} has run no cell {cell[:64]!r}.")


class QuotaUsedUp(SessionError):
    """A tenant has used what it may in a day."""

    code = "quota_used_up"

    def __init__(self, tenant: str, what: str, setting: str) -> None:
        super().__init__(f"Tenant {tenant} has used up the {what} of this day.")
        self.hint = f"The next one begins at 00:00 UTC. Or have limits.{setting} (tenants.{tenant}.{setting}) raised."


class KeyReused(SessionError):
    """An idempotency key stands for another request already."""

    code = "idempotency_key_reused"
    hint = "Use a new key for each session that you want; the same one to ask for the same session again."

    def __init__(self, key: str) -> None:
        super().__init__(f"The Idempotency-Key {key[:64]!r} was used for another request before.")


class CellCancelled(SessionError):
    """A cell was given up before it began."""

    code = "cell_cancelled"
    hint = "It did nothing. Run it again if it is still wanted."

    def __init__(self, cell: str) -> None:
        super().__init__(f"Cell {cell} was cancelled while it waited.")


class ResultLost(SessionError):
    """How a cell ended is not known, and will not be."""

    code = "result_lost"
    hint = "Restore the session and run the cell again by its id: what it changed is not changed twice."

    def __init__(self, session: str, cell: str) -> None:
        super().__init__(f"How cell {cell} of session {session} ended is not known: its kernel died with its gateway.")


class SessionEnded(SessionError):
    code = "session_ended"
    hint = "Start a new one; its transcript stays readable."

    def __init__(self, session: str) -> None:
        super().__init__(f"Session {session} has ended.")


class SessionLost(SessionError):
    """The kernel is gone, and with it the variables."""

    code = "session_lost"
    hint = "Restore it: its finished cells run again in a new kernel, their tool calls are answered from the journal."

    def __init__(self, session: str, reason: str) -> None:
        super().__init__(f"The state of session {session} is lost: {reason}.")
        self.reason = reason


class SessionBusy(SessionError):
    code = "session_busy"
    hint = "Wait for its cells, or interrupt them."

    def __init__(self, session: str, queued: int) -> None:
        super().__init__(f"Session {session} has {queued} cells that run or wait.")


class NotSaved(SessionError):
    """What the session did before is kept in memory, for it cannot be put on disk or into the database."""

    code = "not_saved"
    hint = "Make room on the disk, or bring the database back; the session goes on by itself then."

    def __init__(self, session: str, why: BaseException) -> None:
        super().__init__(f"What session {session} ran before cannot be saved, so nothing more is run: {why}.")
        self.full = isinstance(why, OSError) and why.errno in (errno.ENOSPC, errno.EDQUOT)


class BadCell(SessionError):
    """Code, id or deadline of a cell cannot be."""

    code = "bad_cell"
