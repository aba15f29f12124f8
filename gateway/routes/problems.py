"""Errors of the HTTP interface: `application/problem+json` (RFC 9457) with a `code` for programs, a `message` for
people and, where there is one, a `hint` on what to do."""

from __future__ import annotations

import errno
import secrets
import traceback
from http import HTTPStatus

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from gateway.approvals.desk import ApprovalError
from gateway.catalog import NoShop
from gateway.chat import ChatUnavailable
from gateway.routes.refusals import note_refusal
from gateway.session_errors import (
    BadCell,
    CellNotFound,
    KeyReused,
    NotSaved,
    QuotaUsedUp,
    SessionBusy,
    SessionError,
    SessionNotFound,
)
from gateway.session_files import FileError
from gateway.transcripts.store import RecordDamaged, TranscriptError
from kernel_pool.files import FilesSilent
from kernel_pool.types import BadInjection, KernelPoolError, QuotaExceeded, UnknownProfile
from servers.errors import ToolError

log = structlog.get_logger(__name__)

#: What is too much now, or away, may be over by then.
_RETRY_AFTER_S = "1"
MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """What went wrong."""

    status: int = Field(description="The HTTP status, again.")
    code: str = Field(description="For programs: does not change.")
    message: str = Field(description="For people: what failed, on which input.")
    hint: str = Field("", description="What to do.")


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", *, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.problem = Problem(status=status, code=code, message=message, hint=hint)


def problem_of(error: Exception) -> Problem:
    """An exception as a problem. What nobody expected is logged under a reference, and only that is told."""
    match error:
        case ProblemError():
            return error.problem
        case FilesSilent():
            hint = "A cell may keep the kernel busy, or have changed the file: try again, or interrupt the cell."
            return Problem(status=503, code="kernel_silent", message=str(error), hint=hint)
        case SessionError():
            return Problem(status=_session_status(error), code=error.code, message=str(error), hint=error.hint)
        case ApprovalError():
            return Problem(status=error.status, code=error.code, message=str(error), hint=error.hint)
        case UnknownProfile() | BadInjection():
            return Problem(status=422, code="bad_request", message=str(error), hint="GET /v1/status lists profiles.")
        case QuotaExceeded():
            hint = "End sessions of this tenant, or have its quota raised."
            return Problem(status=403, code="quota_exceeded", message=str(error), hint=hint)
        case KernelPoolError():
            hint = "Try again later; GET /v1/status says how the pool is."
            return Problem(status=503, code="no_kernel", message=str(error), hint=hint)
        case psycopg.OperationalError() | PoolTimeout():
            hint = "The gateway tries again with every request; see whether the database runs."
            return Problem(status=503, code="no_database", message="The database cannot be reached.", hint=hint)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            hint = "Make room in the gateway's data folder and its runtime folder."
            return Problem(status=507, code="disk_full", message="The gateway's disk is full.", hint=hint)
        case RecordDamaged():
            return Problem(status=409, code="transcript_damaged", message=str(error), hint="See docs/transcripts.md.")
        case TranscriptError():
            return Problem(status=404, code="transcript_not_found", message=str(error))
        case ChatUnavailable():
            return Problem(status=503, code="no_model", message=str(error))
        case NoShop():
            return Problem(status=409, code="no_shop", message=str(error))
        case ToolError():
            return Problem(status=502, code="upstream_failed", message=error.message, hint=error.hint)
        case RequestValidationError():
            return Problem(status=422, code="bad_request", message=_wrong_fields(error))
        case HTTPException():
            return _http_problem(error)
    reference = secrets.token_hex(4)
    details = "".join(traceback.format_exception(error))
    log.error("request failed unexpectedly", reference=reference, error=details)
    return Problem(
        status=500, code="internal", message=f"The gateway failed; its log has the reason under {reference}."
    )


def respond(problem: Problem) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
    if problem.status in (429, 503):
        headers["Retry-After"] = _RETRY_AFTER_S
    return JSONResponse(problem.model_dump(), problem.status, headers=headers, media_type=MEDIA_TYPE)


def answer_to(error: Exception) -> JSONResponse:
    """The answer to a request that ended so."""
    return _with_delay(error, respond(problem_of(error)))


def _with_delay(error: Exception, answer: JSONResponse) -> JSONResponse:
    if isinstance(error, ProblemError) and error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer


def install(app: FastAPI) -> None:
    """Let every error of the application end as a problem."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        await note_refusal(request, problem)
        return _with_delay(error, respond(problem))

    kinds: tuple[type[Exception], ...] = (
        ProblemError,
        SessionError,
        KernelPoolError,
        TranscriptError,
        ChatUnavailable,
        NoShop,
        ApprovalError,
        ToolError,
        RequestValidationError,
        HTTPException,
        Exception,
    )
    for kind in kinds:
        app.add_exception_handler(kind, handle)


def described(*statuses: int) -> dict[int | str, dict[str, object]]:
    """For OpenAPI: the problems that a route answers with, beside those of every route."""
    all_routes = (400, 401, 408, 413, 422, 429, 500, 503)
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {}}}
        for status in sorted({*statuses, *all_routes})
    }


#: By code, where it is another than 409.
_FILE_STATUS = {"file_not_found": 404, "bad_path": 422, "file_too_large": 413, "work_folder_full": 413}


def _session_status(error: SessionError) -> int:
    if isinstance(error, FileError):
        return _FILE_STATUS.get(error.code, 409)
    if isinstance(error, NotSaved):
        return 507 if error.full else 503
    statuses: list[tuple[type[SessionError], int]] = [
        (SessionNotFound, 404),
        (CellNotFound, 404),
        (BadCell, 422),
        (KeyReused, 422),
        (SessionBusy, 429),
        (QuotaUsedUp, 429),
    ]
    return next((status for kind, status in statuses if isinstance(error, kind)), 409)


def _wrong_fields(error: RequestValidationError) -> str:
    told = []
    for details in error.errors()[:10]:
        where = ".".join(str(part) for part in details["loc"])
        told.append(f"{where}: {details['msg']}")
    return "The request cannot be read. " + "; ".join(told)


_HINTS = {
    404: "GET /v1/openapi.json describes all routes.",
    413: "Send less, or raise server.max_request_mb.",
}


def _http_problem(error: HTTPException) -> Problem:
    status = error.status_code
    if status == 405 and (error.headers or {}).get("Allow") == "OPTIONS":  # answered for whatever address
        return Problem(status=404, code="not_found", message=HTTPStatus.NOT_FOUND.phrase, hint=_HINTS[404])
    phrase = HTTPStatus(status).phrase
    code = "too_large" if status == 413 else phrase.lower().replace(" ", "_").replace("-", "_")
    return Problem(status=status, code=code, message=str(error.detail or phrase), hint=_HINTS.get(status, ""))
