"""Exports: a page that is safe to open whatever strangers put into a session, notebooks, records; and differences."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from typer.testing import CliRunner

from gateway.commands.transcripts import app
from gateway.transcripts.diff import differences
from gateway.transcripts.html import POLICY, page
from gateway.transcripts.notebook import DirectStep, Header, Said
from gateway.transcripts.store import TranscriptStore
from gateway.types import CallRecord, CellRun
from kernel_pool.types import CellResult

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

#: Each wants to act when the page is opened or touched.
HOSTILE = (
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://evil.example/pixel.png'>",
    "<img src='data:text/html;base64,PHNjcmlwdD4='>",
    "<img srcset='https://evil.example/a 1x'>",
    "<svg onload=alert(1)><script>alert(1)</script><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "<svg><animate attributeName=href values=javascript:alert(1) /></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' &#x6A;avascript:alert(1)'>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "<a href='vbscript:x'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<iframe src='javascript:alert(1)'></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data='javascript:alert(1)'></object><embed src='javascript:alert(1)'>",
    "<form action='https://evil.example'><input name=a autofocus onfocus=alert(1)><button formaction=javascript:x>",
    "<meta http-equiv='refresh' content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<style>@import 'https://evil.example/x.css'; body{background:url(//evil.example)}</style>",
    "<div style='position:fixed;inset:0;background:url(https://evil.example)'>x</div>",
    "<video src=x onerror=alert(1)></video><audio src=x onerror=alert(1)></audio>",
    "<details open ontoggle=alert(1)>x</details>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<template><script>alert(1)</script></template>",
    "</pre></div></body></html><script>alert(1)</script>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<x contenteditable onblur=alert(1) tabindex=1>x</x>",
    "<title></title><script>alert(1)</script>",
    "]]></script><script>alert(1)</script>",
    "<b id=location name=cookie>x</b>",
)
TAGS = frozenset(
    """script iframe object embed form input button meta base link style svg math video audio template""".split()  # noqa: SIM905
)
REFERENCES = ("href", "src", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "cite")


class Seen(HTMLParser):
    """What a page holds beside its own head."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.text = ""
        self._head = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self._head = False
        if self._head:
            return
        if tag in TAGS:
            self.wrong.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "id", "name", "srcset", "srcdoc"):
                self.wrong.append(f"{tag} {name}={value}")
            if name in REFERENCES and not (value or "").startswith(("https://", "http://", "mailto:", "data:image/")):
                self.wrong.append(f"{tag} {name}={value}")
            if tag == "img" and name == "src" and not (value or "").startswith("data:image/"):
                self.wrong.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def look(text: str) -> Seen:
    seen = Seen()
    seen.feed(text)
    return seen


def notebook(hostile: str) -> dict[str, Any]:
    """With the same text in every place that a stranger fills."""
    rich = {"output_type": "display_data", "metadata": {"image/png": {"width": hostile}}}
    stream = {"output_type": "stream", "name": "stdout", "text": f"\x1b[31m{hostile}\x1b[0m"}
    error = {"output_type": "error", "ename": hostile, "evalue": hostile, "traceback": [hostile]}
    mimes = ("text/html", "image/svg+xml", "text/markdown", "text/latex", "application/javascript", "image/png")
    mimes = (*mimes, "text/plain", "application/vnd.jupyter.widget-view+json", hostile)
    outputs = [stream, error, *({**rich, "data": {mime: hostile}} for mime in mimes)]
    about = {name: hostile for name in ("title", "tenant", "session", "state", "created")}
    code = {"cell_type": "code", "id": "c1", "metadata": {}, "execution_count": None, "source": hostile}
    cells = [
        {"cell_type": "markdown", "id": "m1", "metadata": {}, "source": f"**Customer**\n\n> {hostile}"},
        {"cell_type": "markdown", "id": "m2", "metadata": {}, "source": f"[x](javascript:alert(1)) ![y]({hostile})"},
        {**code, "outputs": outputs},
    ]
    return {"metadata": {"omniops": about}, "nbformat": 4, "nbformat_minor": 5, "cells": cells}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_in_a_page_acts_or_fetches(hostile: str) -> None:
    assert look(page(notebook(hostile))).wrong == []


def test_what_is_looked_for_would_be_found() -> None:
    for hostile in ("<script>x</script>", "<img src=x onerror=x>", "<a href=' javascript:x'>", "<b style='a:b'>"):
        assert look(f"<body>{hostile}</body>").wrong, hostile


def test_a_page_has_its_policy_first_and_shows_what_is_worth_seeing() -> None:
    node = notebook("plain words")
    node["cells"][2]["outputs"] += [
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": PNG, "text/plain": "a figure"}},
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"text/html": "<table class='dataframe'><tr><td>seen</td></tr></table>", "text/plain": "unseen"},
        },
        {"output_type": "display_data", "metadata": {}, "data": {"image/svg+xml": "<svg/>"}},
    ]
    text = page(node)
    assert text.index("Content-Security-Policy") < text.index("<title>")
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert "script-src" not in POLICY
    assert f"data:image/png;base64,{PNG}" in text
    assert "data:image/svg+xml;base64,PHN2Zy8+" in text
    seen = look(text)
    assert seen.wrong == []
    assert "seen" in seen.text
    assert "unseen" not in seen.text


def run(cell: str, code: str, text: str, status: str = "ok", parts: int = 1) -> CellRun:
    pieces = [text[len(text) * n // parts : len(text) * (n + 1) // parts] for n in range(parts)]
    outputs = tuple({"output_type": "stream", "name": "stdout", "text": piece} for piece in pieces)
    result = CellResult(status, 1, outputs, None, START, START)  # type: ignore[arg-type]
    return CellRun("s", cell, 1, code, result, (), "", 0)


async def transcripts(root: Path) -> TranscriptStore:
    store = TranscriptStore(root / "transcripts")
    call = CallRecord("s", "d1", "shop.look", {"of": "jo.doe@example.com"}, 0, "read", "applied", False)
    for session, text, parts in (("one", "1\n2\n", 1), ("same", "1\n2\n", 2), ("other", "1\n3\n", 1)):
        transcript = store.open(Header(session, "shop", "agent", START, "Mail jo.doe@example.com"))
        await transcript.add(Said("m1", "customer", "I am jo.doe@example.com", START))
        await transcript.add(DirectStep("d1", (call,), START, START), run("c1", "print(x)", text, parts=parts))
    return store


async def test_differences_are_told_by_cell_and_chance_is_none(tmp_path: Path) -> None:
    store = await transcripts(tmp_path)
    one, same, other = (store.cells(store.find(session)) for session in ("one", "same", "other"))
    assert differences(one, same) == []
    [found] = differences(one, other)
    assert (found.what, found.before) == (["outputs"], "c1")
    assert [line for line in found.lines if line[0] in "+-" and line[1:2] in "23"] == ["-2", "+3"]
    [gone] = differences(one, one[:-1])
    assert (gone.what, gone.after) == (["cell"], None)


async def test_the_commands_export_and_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await transcripts(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = CliRunner()
    place = ["--data-dir", str(tmp_path)]
    for form in ("html", "ipynb", "jsonl"):
        done = command.invoke(app, ["export", "one", "--format", form, *place])
        assert done.exit_code == 0, done.output
        text = (tmp_path / f"one.{form}").read_text()
        assert ("jo.doe" in text) is (form == "jsonl")
    nbformat.validate(nbformat.read(tmp_path / "one.ipynb", as_version=4))
    assert look((tmp_path / "one.html").read_text()).wrong == []
    assert all(json.loads(line)["hash"] for line in (tmp_path / "one.jsonl").read_text().splitlines())
    same = command.invoke(app, ["diff", "one", "same", *place])
    assert (same.exit_code, "No differences in 2 cells." in same.output) == (0, True)
    other = command.invoke(app, ["diff", "one", "other", *place])
    assert (other.exit_code, "outputs" in other.output) == (1, True)
    kept = command.invoke(app, ["verify", "--offline", *place])
    assert (kept.exit_code, kept.output.count(" ok ")) == (0, 3)
    record = tmp_path / "transcripts" / "shop" / "one.jsonl"
    record.write_bytes(record.read_bytes().replace(b"print(x)", b"print(y)", 1))
    broken = command.invoke(app, ["verify", "--offline", *place])
    assert (broken.exit_code, broken.output.count("DAMAGED")) == (1, 1)
