"""A help centre on loopback, and an embeddings endpoint, both over real sockets; what they were asked is counted."""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import math
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mistune
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

_ROOT = Path(__file__).parents[2]
_SHELL = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body>
<nav><a href="/">Home</a> <a href="/login?next=/">Sign in</a></nav><main><h1>{title}</h1>
{body}</main><footer>Imprint of the help centre, all rights reserved</footer></body></html>"""


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    content: str

    @property
    def path(self) -> str:
        return f"/docs/{self.id}"


def documents() -> list[Document]:
    """The help centre's; in a clone without them, made ones of the same shape."""
    file = Path(os.environ.get("SHARED_DATA", _ROOT.parent / "shared" / "data")) / "knowledge" / "documents.json"
    if file.exists():
        return [Document(each["id"], each["title"], each["content"]) for each in json.loads(file.read_text())]
    return [made(n) for n in range(698)]


def made(n: int) -> Document:
    words = random.Random(n)
    fee, days = words.randrange(1, 99), words.randrange(2, 60)
    content = (
        f"## Fees\n\nThe fee of plan {n} is {fee}.50 EUR a month.\n\n- Nothing is due before day {days}.\n"
        f"- Plan {n} can be ended at any time.\n\n## Limits\n\n"
        f"| Item | Amount |\n|---|---|\n| Transfers | {fee * 100} |\n\n### How to"
        f" reach us\n\nWrite to the desk of plan {n}. We answer within {days} hours, on every day of the week."
    )
    return Document(f"doc_plan_{n:03}", f"Plan {n}: fees and limits", content)


@dataclass
class Site:
    """Pages by path, as an ASGI application. Change `pages` and what it serves changes."""

    pages: dict[str, str] = field(default_factory=dict)
    robots: str = "User-agent: *\nDisallow: /login\n"
    sitemap: str = ""
    #: Answers that are not pages, by path.
    special: dict[str, Response] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    agents: set[str] = field(default_factory=set)
    etags: bool = True
    under_way: int = 0
    most_under_way: int = 0
    #: Where set, a page waits for it.
    held: dict[str, asyncio.Event] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = request.url.path
        self.asked[path] += 1
        self.agents.add(request.headers.get("user-agent", ""))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        if path in self.held:
            await self.held[path].wait()
        answer = self._answer(path, request)
        self.under_way -= 1
        self.statuses[answer.status_code] += 1
        await answer(scope, receive, send)

    def _answer(self, path: str, request: Request) -> Response:
        if path in self.special:
            return self.special[path]
        if path == "/robots.txt" and self.robots:
            return Response(self.robots, media_type="text/plain")
        if path == "/sitemap.xml" and self.sitemap:
            return Response(self.sitemap, media_type="application/xml")
        if path not in self.pages:
            return Response("no such page", 404, media_type="text/html")
        body = self.pages[path]
        if not self.etags:
            return Response(body, media_type="text/html")
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        return Response(body, headers={"etag": etag}, media_type="text/html")


def shell(title: str, body: str) -> str:
    return _SHELL.format(title=html.escape(title), body=body)


def help_centre(found: list[Document], group: int = 40) -> Site:
    """An index, a page for each group of documents that links to them, and the documents."""
    groups = [found[i : i + group] for i in range(0, len(found), group)]
    pages = {"/": shell("Help centre", links(f"/topics/{i}" for i in range(len(groups))))}
    for i, group in enumerate(groups):
        pages[f"/topics/{i}"] = shell(f"Topic {i}", links(each.path for each in group))
    for each in found:
        pages[each.path] = shell(each.title, str(mistune.html(each.content)))
    return Site(pages)


def links(paths: Any) -> str:
    return "".join(f'<p><a href="{path}">{path}</a></p>' for path in paths)


@dataclass
class Embeddings:
    """`/v1/embeddings` as OpenAI has it: its limits, its errors, and a vector that depends on the text alone."""

    delay_s: float = 0.0
    dimensions: int | None = None
    #: Answers that come first, in place of vectors.
    first: list[Response] = field(default_factory=list)
    calls: int = 0
    inputs: int = 0
    largest: int = 0
    under_way: int = 0
    most_under_way: int = 0
    texts: Counter[str] = field(default_factory=Counter)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/embeddings", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        self.calls += 1
        if self.first:
            return self.first.pop(0)
        body = await request.json()
        texts = body["input"]
        if len(texts) > 2048:
            return JSONResponse({"error": {"message": "too many inputs"}}, 400)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(self.delay_s)
        self.under_way -= 1
        self.inputs += len(texts)
        self.largest = max(self.largest, len(texts))
        self.texts.update(texts)
        dimensions = self.dimensions or body["dimensions"]
        data = [
            {"object": "embedding", "index": i, "embedding": vector(text, dimensions)} for i, text in enumerate(texts)
        ]
        random.shuffle(data)
        used = sum(len(text) // 4 for text in texts)
        return JSONResponse({"data": data, "model": body["model"], "usage": {"total_tokens": used}})


def vector(text: str, dimensions: int) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    values = [digest[i % 32] / 255 - 0.5 + i / 10_000 for i in range(dimensions)]
    length = math.sqrt(sum(x * x for x in values))
    return [round(x / length, 6) for x in values]
