"""A site on loopback to bring in, and an embeddings endpoint that answers at once."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from servers.scraping.embedding import DIMENSIONS


def site(pages: int, parts: int) -> Starlette:
    """So many pages of so many parts of 60 words each, linked from the first one."""

    async def index(_: Request) -> Response:
        return HTMLResponse("".join(f'<a href="/page/{n}">page {n}</a> ' for n in range(pages)))

    async def page(request: Request) -> Response:
        n = request.path_params["n"]
        text = "".join(f"<h2>Part {i} of page {n}</h2><p>{_words(n, i)}</p>" for i in range(parts))
        return HTMLResponse(f"<title>Page {n}</title><main>{text}</main>")

    async def embeddings(request: Request) -> Response:
        texts = (await request.json())["input"]
        vector = [1.0] + [0.0] * (DIMENSIONS - 1)
        data: list[dict[str, Any]] = [{"index": i, "embedding": vector} for i in range(len(texts))]
        return JSONResponse({"data": data, "usage": {"total_tokens": len(texts)}})

    return Starlette(
        routes=[
            Route("/", index),
            Route("/page/{n:int}", page),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
        ]
    )


def _words(page: int, part: int) -> str:
    return " ".join(f"word{(page * 7919 + part * 104729 + i * 31) % 5000}" for i in range(60))
