"""The work folders of a person's open sessions, as their kernels tell them: strangers, who may say anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

from gateway.gdpr.bundle import Bundle
from gateway.gdpr.parts import Step
from gateway.gdpr.stepping import in_thread
from gateway.gdpr.subject import Subject
from gateway.session_errors import SessionError
from gateway.sessions import Sessions
from kernel_pool.files import ENTRIES
from kernel_pool.types import KernelPoolError


async def folders(
    bundle: Bundle, sessions: Sessions, subject: Subject, most: int, problems: list[str]
) -> AsyncIterator[Step]:
    """Their files, `most` of them and of folders. What cannot be had is said to be missing.

    Raises:
        TooLarge, OSError
    """
    copied = 0
    for session in subject.sessions:
        if sessions.kernel(session) is None:  # what it had went with it
            continue
        waiting, left, named = [""], most, set[str]()
        while waiting and left > 0:
            folder = waiting.pop()
            try:
                entries, more = await sessions.files.list(session, folder, "", min(left, ENTRIES))
            except (SessionError, KernelPoolError) as error:
                problems.append(f"files of session {session}, folder {folder[:80]!r}: {error}")
                break
            left -= len(entries) or 1
            if more:
                problems.append(f"files of session {session}, folder {folder[:80]!r}: more than are given out")
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.kind == "folder":
                    waiting.append(path)
                elif entry.kind == "file" and path not in named:
                    named.add(path)
                    async for step in _copied(bundle, sessions, session, path, problems):
                        yield step
                    copied += 1
        if waiting:
            problems.append(f"files of session {session}: not all, there are more than {most:,} (gdpr.files)")
    bundle.notes["work_folders"] = {"files": copied}


async def _copied(
    bundle: Bundle, sessions: Sessions, session: str, path: str, problems: list[str]
) -> AsyncIterator[Step]:
    try:
        about = await sessions.files.look(session, path)  # refuses what leads out of the folder
        with bundle.part(f"files/{session}/{quote(path)}", "Of the person's open session.") as part:
            async for piece in sessions.files.read(session, path, about, 0, about.size):
                await in_thread(part.add, piece)
                bundle.check()
                if part.due:
                    yield bundle.rows, bundle.bytes + part.size, part.name
    except (SessionError, KernelPoolError) as error:
        problems.append(f"files of session {session}, {path[:80]!r}: {error}")
