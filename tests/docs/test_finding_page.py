"""The page on finding tools, followed on a gateway with an MCP server."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from own_database import own_database
from typer.testing import CliRunner

from gateway.cli import app
from omniops_client import OmniopsError
from servers.registry import load_registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "finding.md").read_text()
AWKWARD = ROOT / "tests" / "mcp_client" / "awkward_server.py"
TOKEN, ACME = "the-servers-own-token", "the-token-of-acme"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@dataclass(frozen=True)
class Reader:
    folder: Path
    env: dict[str, str]
    url: str

    def run(self, commands: str, status: int = 0) -> str:
        """What the commands print: in this process, as a start of the command line takes seconds."""
        printed = ""
        for line in commands.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "omniops"
            try:
                done = CliRunner(env=self.env).invoke(app, arguments, catch_exceptions=False)
            except OmniopsError as error:  # `main` prints it
                if not status:
                    raise
                return f"{printed}{error}"
            printed += done.output
            assert done.exit_code == status, printed
        return printed

    def get(self, path: str, **params: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx.get(self.url + path, params=params, headers=headers, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def reader(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """In a folder where a gateway with the tenant acme and everyone's MCP server `desk` runs."""
    folder = tmp_path_factory.mktemp("finding")
    desk = {"command": sys.executable, "args": [str(AWKWARD), str(folder)]}
    (folder / ".mcp.json").write_text(json.dumps({"mcpServers": {"desk": desk}}))
    base = {name: value for name, value in os.environ.items() if not name.startswith(("OMNIOPS_", "OPENAI_"))}
    with own_database(postgres) as url:
        env = base | {
            "DATABASE_URL": url,
            "PATH": f"{Path(sys.executable).parent}:{base['PATH']}",
            "COLUMNS": "200",
            "OMNIOPS_MCP__FILE": str(folder / ".mcp.json"),
            "OMNIOPS_POOL__PROVISIONER": "local",
            "OMNIOPS_POOL__WARM": "1",
            "OMNIOPS_POOL__PRELOAD": "[]",
            "OMNIOPS_SERVER__TOKEN": TOKEN,
            "OMNIOPS_TENANTS__ACME__TOKEN": ACME,
        }
        command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0"]
        with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.:]+", line)))
                made = Reader(folder, env, address)
                while made.get("/v1/tools", server="desk").status_code == 404:  # it is looked at after the start
                    assert process.poll() is None
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(folder)
                    yield made
            finally:
                process.terminate()


def test_the_commands_find_list_show_and_write_the_reference(reader: Reader) -> None:
    here, _ = blocks("sh")
    printed = reader.run(here)
    assert "woocommerce.refund_order" in printed
    assert "def refund_order(" in printed
    written = (reader.folder / "tools-reference.md").read_text()
    assert f"tools-reference.md: {len(load_registry().names)} tools." in printed
    assert "\n## servers.woocommerce\n" in written
    assert "\n### refund_order\n\n```python\nrefund_order(*, order_id: int | str" in written


def test_a_gateway_is_asked_what_a_tenant_has(reader: Reader) -> None:
    _, there = blocks("sh")
    printed = reader.run(there)
    assert "woocommerce.refund_order" in printed
    assert '"required"' in printed
    assert "desk.add " in reader.run("omniops tools list desk --tenant acme")
    assert "desk.add" not in reader.run("omniops tools list")
    assert "def add(*, a: float, b: float) -> AddResult" in reader.run("omniops tools show --tenant acme desk.add")
    assert "Did you mean desk.add?" in reader.run("omniops tools show --tenant acme desk.ad", status=1)
    assert "There is no tenant 'rival'" in reader.run("omniops tools search --tenant rival refund", status=1)
    # a tenant's own token: what nobody has classified is for operators alone
    asked = f"omniops tools search add two numbers --url {reader.url} --token {ACME}"
    assert "desk.add" not in reader.run(asked)


def test_the_requests_over_http_are_answered(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    [example] = [block for block in blocks("python") if "httpx" in block]
    example = example.replace("http://127.0.0.1:8765", reader.url).replace("TOKEN", TOKEN)
    exec(compile(example, "docs/finding.md", "exec"), {})
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("woocommerce.refund_order(*, order_id, amount")
    assert last.endswith("['order_id', 'amount']")


def test_the_cell_finds_and_is_helped(reader: Reader) -> None:
    [cell] = [block for block in blocks("python") if "httpx" not in block]
    headers = {"authorization": f"Bearer {ACME}"}
    with httpx.Client(base_url=reader.url, headers=headers, timeout=60, trust_env=False) as http:
        session = http.post("/v1/sessions", json={"tenant": "acme"}).json()["id"]
        ran = http.post(f"/v1/sessions/{session}/cells", json={"code": cell}).json()
    printed = "".join(str(output.get("text", "")) for output in ran["outputs"])
    assert ran["status"] == "ok"
    assert printed.startswith("woocommerce.cancel_order(*, order_id, reason")
    assert "Help on function cancel_order" in printed


def test_the_example_of_other_words_is_true(reader: Reader) -> None:
    found = reader.get("/v1/tools", query="give the buyer their money back", limit=5).json()["tools"]
    assert "woocommerce.refund_order" in [tool["name"] for tool in found]


def test_the_figures_are_those_that_were_measured() -> None:
    rows = {row["id"]: row for row in json.loads((ROOT / "benchmarks" / "results.json").read_text())}
    told = re.findall(r"^\| `(\w+)`[^|]*\| ([\d.,]+) \| ([\d.,]+) \|$", PAGE, re.M)
    assert len(told) == 7
    for id, value, peer in told:
        assert [rows[id]["value"], rows[id]["peer"]] == [float(each.replace(",", "")) for each in (value, peer)]
    assert len({rows[f"prompt_tokens_{size}"]["value"] for size in (10, 1_000, 10_000)}) == 1
