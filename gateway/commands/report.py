"""`omniops report`: a notebook run in a session of its own, as a page for a manager and as the notebook it was."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gateway.client import client_for
from gateway.commands.options import DataDirOption, TenantOption, TokenOption, UrlOption
from gateway.settings import load_settings
from gateway.transcripts.clean import clean_output, plain
from gateway.transcripts.files import write_atomically
from gateway.transcripts.notebook import Node
from gateway.transcripts.redaction import Redaction
from omniops_client import Session

#: Beside the product's packages; a folder `notebooks` where the command runs comes first.
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
#: Seconds that one cell may take.
_CELL_S = 600.0


class ReportProblem(typer.BadParameter):
    """There is no such report, or it cannot take these parameters."""


def report(
    name: Annotated[
        str | None, typer.Argument(help="journey, content_gaps, funnel, sales, retention, or a notebook's path.")
    ] = None,
    tenant: TenantOption = "",
    since: Annotated[str, typer.Option(help="ISO 8601, such as 2026-09-01.", show_default="the first")] = "",
    until: Annotated[str, typer.Option(help="The first day left out.", show_default="the last")] = "",
    parameters: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Another parameter; JSON or text."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page; the notebook is put beside it.", show_default="NAME.html"),
    ] = None,
    code: Annotated[bool, typer.Option("--code", help="Show the code on the page as well.")] = False,
    data_dir: DataDirOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Run a report through a running gateway; without a name, list those that there are.

    The page is safe to open and to send on: nothing in it acts or is fetched, and personal data is masked as
    `transcripts.masked` says. Ends with 1 where a cell failed; the page says which.
    """
    if name is None:
        for each in sorted(_folder().glob("*.ipynb")):
            print(f"{each.stem:14} {_title(_read(each))}")
        return
    if not tenant:
        raise typer.BadParameter("of which tenant? --tenant NAME")
    notebook = _read(_find(name))
    spans = {key: value for key, value in {"since": since, "until": until}.items() if value}
    _inject(notebook, spans | dict(_parameter(each) for each in parameters or ()))
    page, redaction = out or Path(f"{Path(name).stem}.html"), Redaction(kinds=load_settings().transcripts.masked)
    console = Console(stderr=True, highlight=False)
    with (
        client_for(data_dir, url, token, silence_s=None) as client,
        client.sessions.create(tenant, role="analyst", title=f"Report {Path(name).stem}") as session,
    ):
        failed = run(notebook, session, console)
        about = {"tenant": tenant, "session": session.id, "title": f"Report for {tenant}"}
    notebook["metadata"]["omniops"] = about | {"created": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    notebook["cells"] = [redaction.cell(cell) for cell in notebook["cells"]]
    write(notebook, page, code=code or bool(failed))
    print(f"{page}, {page.with_suffix('.ipynb')}")
    if failed:
        console.print(plain(failed), markup=False, style="red")
        raise typer.Exit(1)


def run(notebook: Node, session: Session, console: Console) -> str:
    """Run the code cells one after the other, their outputs into the notebook; what the first that fails said."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        console.print(f"cell {number} of {len(cells)}", end="\r")
        result = session.run(cell["source"], deadline_s=_CELL_S)
        cell["outputs"] = [clean_output(output) for output in result.outputs]
        cell["execution_count"] = result.execution_count
        if not result.ok:
            return result.envelope
    return ""


def write(notebook: Node, page: Path, *, code: bool) -> None:
    """The page, and the notebook beside it. What libraries complain of on stderr is for who reads code."""
    from gateway.transcripts.html import page as page_of  # takes a second to import

    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, page_of(notebook if code else _without_stderr(notebook), code=code).encode())
    write_atomically(page.with_suffix(".ipynb"), json.dumps(notebook, indent=1, ensure_ascii=False).encode())


def _without_stderr(notebook: Node) -> Node:
    def heard(cell: Node) -> Node:
        outputs = [each for each in cell.get("outputs", ()) if each.get("name") != "stderr"]
        return {**cell, "outputs": outputs} if "outputs" in cell else cell

    return {**notebook, "cells": [heard(cell) for cell in notebook["cells"]]}


def _inject(notebook: Node, values: dict[str, Any]) -> None:
    """Put a cell with the values behind the one that is tagged `parameters`, as papermill does.

    Raises:
        ReportProblem: there is no such cell, or it has no such parameter.
    """
    tagged = [n for n, cell in enumerate(notebook["cells"]) if "parameters" in cell["metadata"].get("tags", ())]
    known = re.findall(r"^([A-Za-z]\w*) *=", notebook["cells"][tagged[0]]["source"], re.M) if tagged else []
    if unknown := [name for name in values if name not in known]:
        raise ReportProblem(f"There is no parameter {', '.join(unknown)}. It has: {', '.join(known) or 'none'}.")
    if not values:
        return
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    cell = {"cell_type": "code", "id": "injected", "metadata": {"tags": ["injected-parameters"]}, "source": lines}
    notebook["cells"].insert(tagged[0] + 1, cell | {"outputs": [], "execution_count": None})


def _parameter(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found or not name.isidentifier():
        raise ReportProblem(f"--parameter {text!r}: NAME=VALUE is wanted, such as top=5.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _folder() -> Path:
    own = Path("notebooks")
    return own if own.is_dir() else NOTEBOOKS


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".ipynb":
        return path
    if _NAME.match(name) and (found := _folder() / f"{name}.ipynb").is_file():
        return found
    known = ", ".join(sorted(each.stem for each in _folder().glob("*.ipynb")))
    raise ReportProblem(f"There is no report {name!r}. There are: {known or 'none'}; or name a notebook's path.")


def _read(path: Path) -> Node:
    """A notebook, its cells' sources as text.

    Raises:
        ReportProblem
    """
    import nbformat

    try:
        read: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(read)
    except (OSError, ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise ReportProblem(f"{path} is no notebook: {str(error).partition(chr(10))[0]}") from None
    notebook: Node = json.loads(json.dumps(read))
    return notebook


def _title(notebook: Node) -> str:
    """The first heading."""
    texts = (cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    found = next((match[1] for text in texts if (match := re.search(r"^# (.+)$", text, re.M))), "")
    return found.strip()
