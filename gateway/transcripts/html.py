"""A transcript as one HTML page that is safe to open: nothing in it acts, and nothing is fetched.

What strangers put into outputs and messages is cleaned before the page is made, the page's body again afterwards, and
the page's own policy lets a browser run and load nothing, should both have missed something. Blocking.
"""

from __future__ import annotations

import base64
import html
import re
from typing import Any

import nbformat
import nh3
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from gateway.transcripts.notebook import Node

#: No script, no style sheet but the page's own, no picture but those in the page, no frame, no form, no base.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_TAGS = frozenset(
    """a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4
    h5 h6 hr i img ins kbd li ol p pre q s samp small span strong sub summary sup table tbody td tfoot th thead tr u
    ul var""".split()  # noqa: SIM905 - a list of one word a line is no better
)
_ATTRIBUTES = {
    "*": {"class", "title", "lang", "dir"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan", "align"},
    "th": {"colspan", "rowspan", "align", "scope"},
    "ol": {"start"},
    "col": {"span"},
}
_DROPPED = frozenset({"script", "style", "template", "noscript", "iframe", "object", "embed", "svg", "math", "title"})
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|svg\+xml);base64,[A-Za-z0-9+/=]+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+\Z")
#: What is shown of an output, the first that it has.
_PICTURES = ("image/png", "image/jpeg", "image/gif")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; margin: 0; }
.jp-InputArea-editor, .highlight { background: #f6f6f6; padding: .4rem; border-radius: 4px; }
.jp-Cell, .cell { margin: 1rem 0; }
.jp-InputPrompt, .jp-OutputPrompt, .prompt { color: #777; font-size: 12px; }
.jp-OutputArea-output { padding: .4rem; }
blockquote { border-left: 3px solid #ccc; margin: 0; padding-left: 1rem; }
table { border-collapse: collapse; font-size: 13px; } td, th { border: 1px solid #ddd; padding: .2rem .5rem; }
img { max-width: 100%; }
"""


def page(notebook: Node, *, code: bool = True) -> str:
    """The page of a notebook, which stays as it is. `code`: with what its cells say, not only what they show."""
    safe = nbformat.from_dict({**notebook, "metadata": {}, "cells": [_cell(each) for each in notebook["cells"]]})  # type: ignore[no-untyped-call]
    shown = {"exclude_input": not code, "exclude_output_prompt": not code}
    config = Config({"HTMLExporter": {"template_name": "basic", "exclude_anchor_links": True, **shown}})
    body, _ = HTMLExporter(config=config).from_notebook_node(safe)  # type: ignore[no-untyped-call]
    about = notebook["metadata"].get("omniops", {})
    names = [str(about.get(name, "")) for name in ("tenant", "session", "state", "created")]
    title = html.escape(str(about.get("title", "")) or "Session")
    colours = HtmlFormatter().get_style_defs(".highlight")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        f'<meta name="referrer" content="no-referrer">\n<title>{title}</title>\n'
        f"<style>{_STYLE}{colours}</style></head>\n"
        f"<body><h1>{title}</h1>\n<p>{html.escape(' · '.join(names))}</p>\n{clean(body)}\n</body></html>\n"
    )


def clean(fragment: str) -> str:
    """HTML of a stranger's without anything that acts, fetches, or lays itself over the page."""
    return nh3.clean(
        fragment,
        tags=set(_TAGS),
        clean_content_tags=set(_DROPPED),
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel="noopener noreferrer nofollow",
        url_relative="deny",
    )


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "src":
        return value if tag == "img" and _PICTURE.match(value) else None
    if name == "href":
        return value if re.match(r"(?:https?://|mailto:)", value, re.IGNORECASE) else None
    return value


def _cell(cell: Node) -> Node:
    kept = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": {}, "source": cell["source"]}
    if cell["cell_type"] == "code":
        kept |= {"execution_count": cell["execution_count"], "outputs": [_output(each) for each in cell["outputs"]]}
    return kept


def _output(output: dict[str, Any]) -> dict[str, Any]:
    if "data" not in output:
        return output
    data = output["data"]
    return output | {"metadata": {}, "data": _shown(data)}


def _shown(data: dict[str, Any]) -> dict[str, str]:
    for mime in _PICTURES:
        if isinstance(text := data.get(mime), str) and _BASE64.match(text):
            return {"text/html": f'<img src="data:{mime};base64,{"".join(text.split())}">'}
    if isinstance(svg := data.get("image/svg+xml"), str):  # in <img> it neither runs nor fetches
        encoded = base64.b64encode(svg.encode()).decode()
        return {"text/html": f'<img src="data:image/svg+xml;base64,{encoded}">'}
    if isinstance(fragment := data.get("text/html"), str):
        return {"text/html": clean(fragment)}
    plain = data.get("text/plain")
    return {"text/plain": plain if isinstance(plain, str) else f"[{', '.join(data)}]"}
