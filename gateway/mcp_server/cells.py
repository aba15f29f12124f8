"""`run_cell`: in which session, with progress as it goes, stopped when its caller gives it up."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types

from gateway.mcp_server.api import Api, ApiError
from gateway.mcp_server.models import Call, CellRan, RunCell
from gateway.settings import McpServerSettings

#: Told the output of a cell as it comes.
Progress = Callable[[str], Awaitable[None]]

#: Time to stop a cell that its caller has given up, in seconds; its deadline stops it all the same.
_STOP_S = 10.0
_STOP_EVERY_S = 0.1
_GONE = ("session_not_found", "session_ended")


@dataclass
class Bound:
    """The session of one connection."""

    session: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Bindings:
    """The connections' sessions. The ones that were not used for longest are forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[str, Bound] = OrderedDict()

    def of(self, connection: str) -> Bound:
        """`connection`: "" for a request that belongs to none."""
        if not connection:
            return Bound()
        bound = self._known.setdefault(connection, Bound())
        self._known.move_to_end(connection)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return bound


class CellTool:
    """Runs cells over the gateway's HTTP interface."""

    def __init__(self, settings: McpServerSettings) -> None:
        self._settings = settings
        self._closing = False

    def close(self) -> None:
        """The server ends: cells go on from now on, as those of everybody else do."""
        self._closing = True

    async def run(self, api: Api, asked: RunCell, bound: Bound, progress: Progress) -> types.CallToolResult:
        """Raises ApiError."""
        if asked.session:
            session = asked.session
        else:
            async with bound.lock:
                session = bound.session = await self._session(api, asked, bound.session)
        restored = False
        try:
            cell = await self._cell(api, session, asked, progress)
        except ApiError as error:
            if error.code != "session_lost":
                raise
            await api.post(f"/v1/sessions/{session}/restore")
            restored = True
            cell = await self._cell(api, session, asked, progress)
        return self._result(session, cell, restored=restored)

    async def _session(self, api: Api, asked: RunCell, known: str) -> str:
        if known:
            try:
                found = await api.get(f"/v1/sessions/{known}")
            except ApiError as error:
                if error.code not in _GONE:
                    raise
            else:
                if found["state"] != "ended":
                    return known
        tenant = asked.tenant or await only_tenant(api)
        title = asked.code.strip().partition("\n")[0][:80]
        body = {"tenant": tenant, "role": asked.role or "analyst", "title": title}
        return str((await api.post("/v1/sessions", body))["id"])

    async def _cell(self, api: Api, session: str, asked: RunCell, progress: Progress) -> Mapping[str, Any]:
        id = uuid.uuid4().hex[:16]
        body = {"code": asked.code, "cell_id": id, "deadline_s": asked.deadline_s}
        try:
            async for event in api.events(f"/v1/sessions/{session}/cells", body):
                if event.kind == "output":
                    await progress(str(event.data["text"])[-self._settings.progress_chars :])
                elif event.kind == "cell":
                    return event.data
                elif event.kind == "error":
                    told = " ".join(str(event.data[name]) for name in ("message", "hint") if event.data.get(name))
                    raise ApiError(told, str(event.data.get("code", "")))
        except asyncio.CancelledError:
            if not self._closing:
                with anyio.move_on_after(_STOP_S, shield=True):
                    await _stop(api, session, id)
            raise
        raise ApiError("The gateway ended before the cell did: ask for its result with the cell's id.", "broke_off")

    def _result(self, session: str, cell: Mapping[str, Any], *, restored: bool) -> types.CallToolResult:
        calls = [Call(tool=each["tool"], effect=each["effect"], state=each["state"]) for each in cell["calls"]]
        names = ("cell", "index", "status", "reason", "state_lost", "ms", "envelope")
        ran = CellRan(session=session, restored=restored, calls=calls, **{name: cell[name] for name in names})
        note = "; its earlier cells were run again, for its kernel was gone" if restored else ""
        text = f"{ran.envelope}\n[session {session}{note}]"
        return types.CallToolResult(
            content=[types.TextContent(text=text), *self._images(cell["outputs"])],
            structured_content=ran.model_dump(),
            is_error=ran.status in ("error", "interrupted", "dead"),
        )

    def _images(self, outputs: list[dict[str, Any]]) -> list[types.ImageContent]:
        """Plots, as far as they fit."""
        left = self._settings.image_kb * 1024
        found = []
        for output in outputs:
            png = output.get("data", {}).get("image/png")
            if not isinstance(png, str) or len(png) > left:
                continue
            left -= len(png)
            data = base64.b64encode(base64.b64decode(png)).decode()  # Jupyter breaks it into lines
            found.append(types.ImageContent(data=data, mime_type="image/png"))
        return found


async def only_tenant(api: Api) -> str:
    """The tenant that the key reaches. Raises ApiError: there are several, or none."""
    tenants = (await api.get("/v1/status"))["tenants"]
    if len(tenants) == 1:
        return str(tenants[0])
    known = ", ".join(tenants) or "none"
    raise ApiError(f"The key reaches several tenants, or none: say which in `tenant`. It reaches: {known}.")


async def _stop(api: Api, session: str, cell: str) -> None:
    """Give the cell up; one that the gateway has not heard of yet, as soon as it has."""
    while True:
        try:
            await api.post(f"/v1/sessions/{session}/cells/{cell}/cancel")
            return
        except ApiError as error:
            if error.code != "cell_not_found":
                return
        await asyncio.sleep(_STOP_EVERY_S)
