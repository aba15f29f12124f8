"""HTML to `Content`. Runs in the reader's process alone: it feeds strangers' bytes to a parser written in C."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode

from .page import Block, Content, Source
from .products import product_of

#: Without text that a reader of the page is after.
_NOISE = (
    "script, style, noscript, template, svg, iframe, object, embed, canvas, nav, footer, aside, form, button, select,"
    " dialog, [hidden], [aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], [role=search]"
)
_BLOCKS = frozenset(
    {
        "p", "div", "section", "article", "main", "li", "ul", "ol", "table", "thead", "tbody", "tfoot", "caption", "tr",
        "dl", "dt", "dd", "blockquote", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "figure", "figcaption", "address",
        "body", "header", "details", "summary", "fieldset", "html", "center",
    }
)  # fmt: skip
_HEADING = re.compile(r"h([1-6])$")
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_HEADER_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
#: What a main part holds at least to be taken for the page.
_ENOUGH = 80
#: Stands for <br> among the pieces of a block.
_BREAK = "\x1e"
_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200b\u2060\ufeff]")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8})?")
_MD_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")


def read(source: Source) -> Content:
    """The page's content, whatever is wrong with it."""
    kind = source.content_type.partition(";")[0].strip().lower()
    text = decoded(source.body, source.content_type)
    if kind in ("text/plain", "text/markdown"):
        return from_text(text)
    return from_html(text, source.most_links)


def decoded(body: bytes, content_type: str) -> str:
    """By its byte order mark, its header, its own word or as UTF-8; what does not fit becomes U+FFFD."""
    for mark, name in _BOMS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    said = _HEADER_CHARSET.search(content_type)
    meta = _META_CHARSET.search(body[:4096])
    names = [said[1]] if said else []
    names += [meta[1].decode("ascii", "replace")] if meta else []
    for name in names:
        try:
            # as browsers take it
            western = name.lower() in ("iso-8859-1", "latin1", "ascii", "us-ascii")
            return body.decode("cp1252" if western else name, "replace")
        except (LookupError, ValueError):
            continue
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        # old pages say nothing and are rarely anything else
        broken = body.decode("utf-8", "replace")
        return broken if broken.count("\ufffd") * 20 < len(body) else body.decode("cp1252", "replace")


def from_text(text: str) -> Content:
    """Plain text and Markdown: headings by `#`, blocks by blank lines."""
    blocks: list[Block] = []
    for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines: list[str] = []
        for line in part.split("\n"):
            heading = _MD_HEADING.match(line.strip())
            if heading is None:
                lines.append(line.rstrip())
                continue
            blocks += _text_block(lines)
            lines = []
            blocks.append(Block(len(heading[1]), clean(heading[2])))
        blocks += _text_block(lines)
    title = next((block.text for block in blocks if block.level == 1), "")
    return Content(title=title, blocks=tuple(block for block in blocks if block.text))


def _text_block(lines: list[str]) -> list[Block]:
    text = _NOT_SHOWN.sub("", "\n".join(lines)).strip()
    return [Block(0, text)] if text else []


def from_html(text: str, most_links: int) -> Content:
    tree = LexborHTMLParser(text)
    title = clean(_text_of(tree.css_first("title")))
    robots = " ".join(_content(tree, f'meta[name="{name}" i]') for name in ("robots", "omniopsbot")).lower()
    links: dict[str, None] = {}
    for node in tree.css("a[href], area[href]"):
        if len(links) >= most_links:
            break
        if "nofollow" not in (node.attributes.get("rel") or "").lower():
            links[node.attributes.get("href") or ""] = None
    base = tree.css_first("base[href]")
    found = tree.css_first('link[rel="canonical" i]')
    html = tree.css_first("html")
    product = product_of(tree)
    for node in tree.css(_NOISE):
        node.decompose()
    for node in tree.css("header"):
        if node.css_first("h1") is None:
            node.decompose()
    blocks = _main_blocks(tree)
    heading = next((block.text for block in blocks if block.level == 1), "")
    return Content(
        title=clean(_content(tree, 'meta[property="og:title"]')) or title or heading,
        description=clean(_content(tree, 'meta[name="description" i]')),
        language=_language(html),
        canonical=_joined(base, (found.attributes.get("href") or "") if found else ""),
        links=tuple(_joined(base, link) for link in links if link),
        blocks=tuple(blocks),
        product=product,
        noindex="noindex" in robots or "none" in robots.split(),
        nofollow="nofollow" in robots or "none" in robots.split(),
    )


def _language(html: LexborNode | None) -> str:
    said = _LANGUAGE.match((html.attributes.get("lang") or "") if html else "")
    return said[0].lower() if said else ""


def _joined(base: LexborNode | None, link: str) -> str:
    href = (base.attributes.get("href") or "") if base else ""
    try:
        return urljoin(href, link) if href and link else link
    except ValueError:
        return link


def _main_blocks(tree: LexborHTMLParser) -> list[Block]:
    """Of the page's main part, where it marks one that is worth it; else of its body."""
    for selector in ("main", "[role=main]", "article"):
        parts = tree.css(selector)
        if len(parts) == 1:
            blocks = list(_blocks(parts[0]))
            if sum(len(block.text) for block in blocks) >= _ENOUGH:
                return blocks
    return list(_blocks(tree.body)) if tree.body is not None else []


def _blocks(root: LexborNode) -> Iterator[Block]:
    """Text by the innermost block element around it; cells of a row stand side by side."""
    pieces: list[str] = []
    current: LexborNode | None = None
    for node in root.traverse(include_text=True):
        if node.tag == "br" or node.tag == "hr":
            pieces.append(_BREAK)
            continue
        if node.tag in ("td", "th"):
            pieces.append("\t" if pieces else "")
            continue
        if node.tag != "-text":
            if node.tag in _BLOCKS and current is not None and pieces and node.mem_id != current.mem_id:
                yield from _made(current, pieces)
                pieces, current = [], None
            continue
        block = _block_around(node, root)
        if current is None or block.mem_id != current.mem_id:
            if current is not None:
                yield from _made(current, pieces)
            current, pieces = block, []
        pieces.append(node.text_content or "")
    if current is not None:
        yield from _made(current, pieces)


def _block_around(node: LexborNode, root: LexborNode) -> LexborNode:
    parent = node.parent
    while parent is not None and parent.mem_id != root.mem_id and parent.tag not in _BLOCKS:
        parent = parent.parent
    return parent if parent is not None else root


def _made(block: LexborNode, pieces: list[str]) -> Iterator[Block]:
    raw = "".join(pieces)
    if block.tag == "pre":
        text = _NOT_SHOWN.sub("", raw.replace(_BREAK, "\n")).strip("\n")
        if text.strip():
            yield Block(0, text)
        return
    row = block.tag == "tr"
    lines = (clean(line, cells=row) for line in raw.split(_BREAK))
    text = "\n".join(line for line in lines if line)
    if not text:
        return
    heading = _HEADING.match(block.tag or "")
    if heading:
        yield Block(int(heading[1]), text.replace("\n", " ")[:300])
    else:
        yield Block(0, f"- {text}" if block.tag == "li" else text)


def clean(text: str, *, cells: bool = False) -> str:
    """On one line, without what is not shown."""
    if cells:
        return " | ".join(each for each in (clean(cell) for cell in text.split("\t")) if each)
    return " ".join(_NOT_SHOWN.sub("", text).split())


def _text_of(node: LexborNode | None) -> str:
    return node.text() if node is not None else ""


def _content(tree: LexborHTMLParser, selector: str) -> str:
    node = tree.css_first(selector)
    return (node.attributes.get("content") or "") if node is not None else ""
