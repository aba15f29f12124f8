"""Servers as people use them, from npm, called from cells: catalogue, kernel, broker, approvals and all."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from npm_servers import everything, everything_over_http, mcp_file, npm_folder

from gateway.approvals.desk import Person
from gateway.mcp_client.book import ToolKey
from gateway.mcp_client.status import ServerStatus
from gateway.testing import TENANT, CellFailed, ToolSession, tool_session
from servers.errors import ToolInputError, UpstreamError

pytestmark = pytest.mark.timeout(400)  # the first may have to wait for npm

SERVERS = ("everything", "everything_http", "files", "browser")
#: What a person would say of them.
SLOW = "trigger-long-running-operation"
READS = {
    "everything": ("echo", "get-sum", "get-structured-content", "get-tiny-image", "get-env", SLOW),
    "files": ("read_text_file", "list_directory"),
    "browser": ("browser_snapshot", "browser_navigate"),
}
PAGE = b"""<!doctype html><title>Orders</title><link rel="icon" href="data:,">
<h1>Three orders are late</h1><button onclick="document.title = 'Shipped'">Ship them</button>"""


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: Any) -> None:
        pass


@dataclass(frozen=True)
class Desk:
    """A session with all the servers, and what may be read and written by one of them."""

    session: ToolSession
    files: Path
    modules: Path

    def status(self, server: str) -> ServerStatus:
        mcp = self.session.gateway.mcp
        config = mcp.find(server, TENANT)
        assert config is not None
        return mcp.status(config, TENANT)

    def prints(self, code: str) -> list[str]:
        """The lines that a cell prints, which ends well."""
        run = self.session.cell(code)
        assert run.result.status == "ok", run.result
        return "".join(str(each.get("text", "")) for each in run.result.outputs).splitlines()

    def classify(self, server: str, tool: str) -> None:
        book = self.session.gateway.mcp.book
        pin = book.pin(ToolKey(TENANT, server, tool))
        assert pin is not None, tool

        async def read() -> None:
            await book.classify(
                pin, tenant=TENANT, effect="read", roles=("operator",), idempotent=False, principal="operator (anna)"
            )

        self.session._portal.call(read)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    modules, folder = npm_folder(), tmp_path_factory.mktemp("real")
    with everything_over_http(modules) as url:
        file = mcp_file(folder, modules, url)
        with tool_session(approved=True, mcp_file=file) as session:
            made = Desk(session, folder / "files", modules)
            deadline = time.monotonic() + 120
            while any(made.status(server).state != "ready" for server in SERVERS):
                assert time.monotonic() < deadline, [made.status(server) for server in SERVERS]
                time.sleep(0.05)
            made_for_all = {**READS, "everything_http": READS["everything"]}
            for server, tools in made_for_all.items():
                for tool in tools:
                    made.classify(server, tool)
            session._portal.call(session.gateway.mcp.renew)
            yield made


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_each_says_what_it_is_and_nothing_of_it_is_trusted_unseen(desk: Desk) -> None:
    for server, least in zip(SERVERS, (10, 10, 10, 20), strict=True):
        status = desk.status(server)
        assert (status.state, status.detail, status.notes) == ("ready", "", ())
        assert status.tools >= least
        known = len(READS[server.removesuffix("_http")])
        assert (status.unclassified, status.changed) == (status.tools - known, 0)
    assert desk.status("everything").program.startswith("mcp-servers/everything")
    assert desk.status("files").program.startswith("secure-filesystem-server")
    assert desk.status("browser").program.startswith("Playwright")


@pytest.mark.parametrize("server", ["everything", "everything_http"])
def test_a_cell_imports_a_server_and_calls_it(desk: Desk, server: str) -> None:
    printed = desk.prints(
        f"from servers.{server} import echo, get_sum, get_structured_content, get_tiny_image\n"
        "print(echo(message='hello')[0]['text'])\n"
        "print(get_sum(a=17, b=25)[0]['text'])\n"
        "weather = get_structured_content(location='Chicago')\n"
        "print(sorted(weather), type(weather['temperature']).__name__)\n"
        "image = next(part for part in get_tiny_image() if part['type'] == 'image')\n"
        "print(image['mimeType'], len(image['data']) > 1000)"
    )
    assert printed == [
        "Echo: hello",
        "The sum of 17 and 25 is 42.",
        "['conditions', 'humidity', 'temperature'] int",
        "image/png True",
    ]
    with pytest.raises(ToolInputError, match="message"):
        desk.session.call(f"{server}.echo", text="hello")
    with pytest.raises(ToolInputError, match="location"):
        desk.session.call(f"{server}.get_structured_content", location="Atlantis")


def test_calls_from_one_cell_run_beside_one_another(desk: Desk) -> None:
    printed = desk.prints(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from servers.everything import echo, trigger_long_running_operation\n"
        "with ThreadPoolExecutor() as pool:\n"
        "    slow = pool.submit(trigger_long_running_operation, duration=2, steps=4)\n"
        "    print(echo(message='meanwhile')[0]['text'], slow.done())\n"
        "    print(slow.result()[0]['text'])"
    )
    assert printed == ["Echo: meanwhile False", "Long running operation completed. Duration: 2 seconds, Steps: 4."]


def test_a_server_is_found_and_described_in_a_cell(desk: Desk) -> None:
    printed = "\n".join(
        desk.prints(
            "import servers\n"
            "servers.search('weather for a location, structured')\n"
            "servers.describe('everything.get_structured_content')"
        )
    )
    assert "everything.get_structured_content" in printed
    assert "Literal['New York', 'Chicago', 'Los Angeles']" in printed.replace('"', "'")


def test_a_server_sees_nothing_of_the_gateway(desk: Desk) -> None:
    seen = desk.session.call("everything.get_env")
    assert "PATH" in seen
    assert [name for name in seen if name.startswith(("OMNIOPS", "OPENAI", "DATABASE"))] == []


def test_files_are_read_where_they_may_be_and_written_by_leave(desk: Desk) -> None:
    (desk.files / "note.txt").write_text("paid")
    assert desk.session.call("files.read_text_file", path=str(desk.files / "note.txt")) == {"content": "paid"}
    for path in ("/etc/passwd", f"{desk.files}/../.mcp.json"):
        with pytest.raises(UpstreamError, match="outside allowed directories"):
            desk.session.call("files.read_text_file", path=path)
    run = desk.session.cell(
        f"from servers.files import write_file\nwrite_file(path={str(desk.files / 'new.txt')!r}, content='sent')"
    )
    assert run.result.status == "ok"
    assert [(call.effect, call.state) for call in run.calls] == [("critical", "applied")]
    (request,) = desk.session._portal.call(desk.session.gateway.desk.find, Person("tester", None, decides=True))
    assert [(call.view.tool, call.approved, call.state) for call in request.calls] == [
        ("files.write_file", True, "applied")
    ]
    assert (desk.files / "new.txt").read_text() == "sent"


def test_a_browser_reads_and_uses_a_page(desk: Desk, page: str) -> None:
    printed = "\n".join(
        desk.prints(
            "from servers.browser import browser_click, browser_navigate, browser_snapshot\n"
            f"browser_navigate(url={page!r})\n"
            "print(browser_snapshot()[0]['text'])\n"
            "print(browser_click(element='Ship them', target='button')[0]['text'])"
        )
    )
    assert 'heading "Three orders are late"' in printed
    assert "Page Title: Shipped" in printed
    # The server's own hint makes it critical, whatever was decided.
    catalogue = desk.session.gateway.mcp._snapshots._catalogue.of_tenant(TENANT)
    assert catalogue.get("browser.browser_navigate").effect == "critical"
    assert catalogue.get("browser.browser_snapshot").effect == "read"


def test_one_that_is_killed_comes_back_and_harms_no_other(desk: Desk) -> None:
    desk.session.call("everything.echo", message="before")
    others = {server: desk.status(server).since for server in SERVERS[1:]}
    killed = processes_of(everything(desk.modules), "stdio")
    assert len(killed) == 1
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while desk.status("everything").state == "ready":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert desk.session.call("everything_http.echo", message="beside")[0]["text"] == "Echo: beside"
    assert desk.session.call("everything.echo", message="after")[0]["text"] == "Echo: after"
    assert {server: desk.status(server).since for server in SERVERS[1:]} == others
    with pytest.raises(CellFailed, match="has no tool 'no_such_tool'"):
        desk.session.call("everything.no_such_tool")


def processes_of(*arguments: str) -> list[int]:
    """Node.js with these arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        if words and words[0].endswith("node") and tuple(words[1:]) == arguments:
            found.append(int(path.parent.name))
    return found
