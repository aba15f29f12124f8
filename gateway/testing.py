"""Try a tool as a cell does: through a real kernel, a real broker and a real journal.

    with tool_session("tools") as tools:
        assert tools.call("weather.forecast", city="Bern")["sky"] == "clear"

It takes seconds to start (a database, a sandbox) and milliseconds per call: start it once for a module of tests.
`tools.another(role="agent", customer=7)` is another session of the same gateway, as somebody else.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from gateway.approvals.desk import Person
from gateway.approvals.types import Approval
from gateway.broker.errors import from_body
from gateway.runtime import Gateway, open_gateway
from gateway.settings import (
    AgentSettings,
    ApprovalSettings,
    PoolSettings,
    Settings,
    ShopSettings,
    SupabaseSettings,
    TenantSettings,
)
from gateway.types import CellRun, Role
from servers.errors import ERRORS, ToolError
from servers.registry import Registry, load_registry

#: Whose session it is, unless `another` names another.
TENANT = "trial"

#: A call whose result is printed as JSON: a table as its rows, what streams as the list of its parts.
_CALL = """\
from servers.{server} import {name} as _tool
import json as _json
def _plain(value):
    return _json.loads(value.to_json(orient="records", date_format="iso")) if hasattr(value, "to_json") else list(value)
print(_json.dumps(_tool(**_json.loads({given!r})), default=_plain))
"""


class CellFailed(Exception):
    """A cell ended otherwise than well, and not by a tool's error. The message is its traceback."""


@dataclass(frozen=True)
class ToolSession:
    """A session whose cells run in a sandboxed kernel. Variables stay from call to call."""

    gateway: Gateway
    session: str
    _portal: BlockingPortal

    def cell(self, code: str) -> CellRun:
        """Run a cell: its outputs, its calls as the journal has them, and the envelope that a model would see."""
        return self._portal.call(self.gateway.sessions.run_cell, self.session, code)

    def call(self, tool: str, /, **arguments: Any) -> Any:
        """Call a tool, such as "weather.forecast", from a cell; what the cell got, as JSON has it: a table as its rows.

        Raises:
            ToolError: of the class that the cell would catch.
            CellFailed
        """
        server, _, name = tool.partition(".")
        run = self.cell(_CALL.format(server=server, name=name, given=json.dumps(arguments)))
        if run.result.status == "ok":
            printed = "".join(str(each["text"]) for each in run.result.outputs if each.get("name") == "stdout")
            return json.loads(printed.rstrip("\n").rpartition("\n")[2])  # a long work has shown its steps before
        if run.calls and run.calls[-1].error is not None:
            raise from_body(run.calls[-1].error)
        raise _error_of(run)

    def another(self, *, tenant: str = TENANT, role: Role = "operator", customer: int | None = None) -> ToolSession:
        """Another session of the same gateway. `tenant`: one of `tenants`; left out, this one's own."""
        if tenant not in self.gateway.settings.tenants:
            known = ", ".join(self.gateway.settings.tenants)
            raise ValueError(f"There is no tenant {tenant!r}: name it in `tenants` of tool_session. Known: {known}.")
        create = partial(self.gateway.sessions.create, tenant, "author", role, "tools on trial", customer=customer)
        return ToolSession(self.gateway, self._portal.call(create).id, self._portal)


@contextmanager
def tool_session(
    tools_dir: Path | str | None = None,
    *,
    role: Role = "operator",
    shop: ShopSettings | None = None,
    supabase: SupabaseSettings | None = None,
    credentials: Mapping[str, str] | None = None,
    tenants: Mapping[str, TenantSettings] | None = None,
    customer: int | None = None,
    registry: Registry | None = None,
    approved: bool = False,
    mcp_file: Path | str | None = None,
) -> Iterator[ToolSession]:
    """A session to call tools in, with a gateway of its own in a temporary folder. Blocks; needs no event loop.

    `tools_dir`: servers of your own. `role`: who calls. `shop`: the store behind the tools of `woocommerce`.
    `supabase`: the tables behind those of `supabase`. `credentials`: the tenant's, by name, kept encrypted as any
    other's: for tools that ask for them, and for settings that say `secret://NAME`. `tenants`: others beside this one,
    by name, for `another`. `customer`: whom a session of role agent was verified for. `approved`: a person approves
    every call that has to wait for one, at once; otherwise such a call raises ApprovalRequired. `mcp_file`: a
    `.mcp.json`, whose servers come up by and by.

    Raises:
        StartError: the gateway cannot start here; the message says why.
    """
    registry = registry or load_registry(None if tools_dir is None else Path(tools_dir))
    mcp = None if mcp_file is None else Path(mcp_file)
    own = TenantSettings(shop=shop, supabase=supabase, mcp_file=mcp)
    with tempfile.TemporaryDirectory(prefix="omniops-trial-") as folder, start_blocking_portal() as portal:
        settings = Settings(
            data_dir=Path(folder) / "data",
            database_url=None,
            openai_api_key=None,
            tenants={**(tenants or {}), TENANT: own},
            agent=AgentSettings(everyday_tools=()),
            pool=PoolSettings(warm=1, preload=()),
            approvals=ApprovalSettings(hold_s=0, hold_chat_s=0),
        )
        with portal.wrap_async_context_manager(open_gateway(settings, registry=registry)) as gateway:
            if approved:
                gateway.gate.on_asked.append(partial(_approve, gateway))
            for name, value in (credentials or {}).items():
                portal.call(gateway.vault.put, TENANT, name, value, "author")
            yield ToolSession(gateway, "", portal).another(role=role, customer=customer)


async def _approve(gateway: Gateway, approval: Approval) -> None:
    await gateway.desk.approve(Person("tool_session", None, decides=True), approval.id)


def _error_of(run: CellRun) -> Exception:
    """What ended a cell before any call was made, such as a wrong argument that the stub saw."""
    error = run.result.error
    if error is None:
        return CellFailed(run.result.reason or f"the cell ended as {run.result.status}")
    known: dict[str, type[ToolError]] = {cls.__name__: cls for cls in ERRORS}
    if error.name in known:
        return known[error.name](error.value)
    return CellFailed("\n".join(error.traceback) or f"{error.name}: {error.value}")
