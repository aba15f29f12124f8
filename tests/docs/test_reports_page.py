"""The page on reports: its commands, its cells and its program, on one gateway with small files loaded."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from own_database import own_database
from served_gateway import ServedGateway, environment, served
from typer.testing import CliRunner

from gateway.cli import app
from gateway.schedules.work import cells_of
from gateway.settings_schedules import ScheduleSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reports.md").read_text()
OWN = "the-token-of-acme"
REPORTS = {"journey", "content_gaps", "funnel", "sales", "retention"}

pytestmark = pytest.mark.timeout(300)

TALK = [
    ("hello", "openinggreeting"),
    ("<script>alert(1)</script> book me a flight to Rome", "bookflight"),
    ("4111 1111 1111 1111", "contentonly"),
    ("do you have a lounge for my dog", "outofdomain"),
    ("thanks", "thankyou"),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def lines(number: int) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in blocks("sh")[number].splitlines()]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{arguments}: {done.output} {done.exception!r}"
    return done.output


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedGateway]:
    data = tmp_path_factory.mktemp("reports") / ".omniops"
    with own_database(postgres) as url, served(data, environment(url, OMNIOPS_TENANTS__ACME__TOKEN=OWN)) as gateway:
        folder = data.parent
        talk = [("airline", f"c{n}", turn, *each) for n in range(6) for turn, each in enumerate(TALK[: 3 + n % 3])]
        other = [("media", "m1", 0, "not of this tenant", "viewbills")]
        names = ["domain", "conversation_id", "turn", "utterance", "intent"]
        pd.DataFrame(talk + other, columns=names).to_csv(folder / "conversations.csv", index=False)
        names = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"]
        orders = [
            (str(1000 + n), "22423", "CAKESTAND", 2, f"2011-0{1 + n % 6}-05", 12.75, 7 + n % 3) for n in range(12)
        ]
        pd.DataFrame(orders, columns=names).to_csv(folder / "orders.csv", index=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            told = [run(*line) for line in lines(1)]
            again = [run(*line) for line in lines(1)]
        assert "24 messages written, 0 were there before" in told[0]
        assert "12 orders written" in told[1]
        assert ["0 messages written, 24" in again[0], "0 orders written, 12" in again[1]] == [True, True]
        yield gateway


@pytest.fixture
def folder(gateway: ServedGateway, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's."""
    monkeypatch.chdir(gateway.data_dir.parent)
    monkeypatch.setenv("COLUMNS", "240")
    return gateway.data_dir.parent


def test_the_reports_are_run_as_pages_that_are_safe(folder: Path) -> None:
    listed, *made, work = [run(*line) for line in lines(0)]
    assert {line.split()[0] for line in listed.splitlines()} == REPORTS
    assert len(made) == 3
    for name in ("journey", "sales", "out/gaps"):
        page = (folder / f"{name}.html").read_text()
        assert "<script" not in page
        assert "default-src &#x27;none&#x27;" in page
        assert 'src="data:image/png;base64,' in page, "its plots are in it"
        assert "from servers.analytics" not in page, "a manager reads no code"
        nbformat.validate(nbformat.read(folder / f"{name}.ipynb", 4))
    filled = nbformat.read(folder / "sales.ipynb", 4)
    [injected] = [cell for cell in filled.cells if "injected-parameters" in cell.metadata.get("tags", ())]
    assert injected.source == "since = '2011-01-01'\nuntil = '2011-07-01'\nby = 'week'"
    assert "306.00 GBP" in (folder / "sales.html").read_text()
    gaps = (folder / "out" / "gaps.html").read_text()
    assert "do you have a lounge for my dog" in gaps
    assert "4111" not in gaps
    assert [name for name in ("customer_journey", "sales_report", "content_gaps") if name not in work] == []


def test_the_cells_work(gateway: ServedGateway) -> None:
    with gateway.client() as http:
        id = str(http.post("/v1/sessions", json={"tenant": "acme", "role": "analyst"}).json()["id"])
        for code in blocks("python")[:2]:
            told = http.post(f"/v1/sessions/{id}/cells", json={"code": code}).raise_for_status().text
            assert '"status":"ok"' in told.replace(" ", ""), told
        http.delete(f"/v1/sessions/{id}").raise_for_status()


def test_the_schedule_is_one_and_finds_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    [given] = tomllib.loads(blocks("toml")[0])["tenants"]["acme"]["schedules"]
    cells = cells_of(ScheduleSettings(**given))
    assert cells[1] == "top = 5"
    assert cells[0].startswith("since =")


def test_papermill_fills_a_notebook_on_a_kernel_of_the_gateways(gateway: ServedGateway, folder: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    env = kept | {"HOME": os.fspath(folder), "no_proxy": "127.0.0.1"}
    code = blocks("python")[2].replace("127.0.0.1:8765", gateway.url.removeprefix("http://")).replace("TOKEN", OWN)
    code = code.replace('"notebooks/', f'"{ROOT}/notebooks/')
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    filled = nbformat.read(folder / "filled.ipynb", 4)
    printed = [o.text for cell in filled.cells for o in cell.get("outputs", ()) if o.get("name") == "stdout"]
    assert any("Most are lost before" in text for text in printed)


@pytest.mark.parametrize("name", ["content_gaps", "funnel", "retention"])  # the others are run above
def test_a_tenant_without_anything_gets_a_report_that_says_so(folder: Path, name: str) -> None:
    run("report", name, "--tenant", "other", "--out", f"empty/{name}.html")
    assert "There are no" in (text := (folder / "empty" / f"{name}.html").read_text()) or "No question" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("no_such_report", "--tenant", "acme"), "There is no report"),
        (("journey", "--tenant", "acme", "-p", "colour=red"), "There is no parameter colour"),
        (("journey", "--tenant", "acme", "-p", "colour"), "NAME=VALUE"),
        (("journey",), "of which tenant"),
        (("../../etc/passwd", "--tenant", "acme"), "There is no report"),
        (("conversations.csv.ipynb", "--tenant", "acme"), "is no notebook"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(app, ("report", *arguments))
    assert done.exit_code == 2
    assert told in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())


def test_a_cell_that_fails_is_on_the_page(folder: Path) -> None:
    done = CliRunner().invoke(app, ("report", "sales", "--tenant", "acme", "--since", "soon", "-o", "failed.html"))
    assert done.exit_code == 1
    assert "is no ISO 8601 time" in (folder / "failed.html").read_text()
