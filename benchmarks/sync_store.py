"""A store of any size, in a process of its own: `python -m benchmarks.sync_store COUNT DELAY_MS`.

It has the retail shop's products and, each as a product of its own, their variants, over and over. Pages are made when
they are asked for, and whole: what a client does not want, it gets as well.
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from demo import tau
from demo.shop import templates
from demo.shop.responses import linked
from demo.shop.seed import build, slug

#: Between the ids of two products: room for the ids of a product's variations.
_SPREAD = 100
_VARIATIONS = re.compile(r"/wp-json/wc/v3/products/(\d+)/variations")


def _originals() -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each product with its variations."""
    seed = build(tau.load_data())
    found: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for product in seed.products.values():
        variations = [seed.variations[id] for id in product["variations"]]
        found.append((product, variations))
        for each in variations:
            shared = {name: value for name, value in each.items() if name in templates.PRODUCT}
            name = f"{product['name']} {each['name']}"
            simple = {**product, **shared, "type": "simple", "name": name, "slug": slug(name), "variations": []}
            found.append((simple, []))
    return found


def store_app(count: int, delay_s: float) -> ASGIApp:
    """`count` products, each answer after a delay."""
    originals = _originals()

    def product(n: int) -> dict[str, Any]:
        raw, variations = originals[n % len(originals)]
        id = (n + 1) * _SPREAD
        own = {"id": id, "sku": f"{raw['sku']}-{n}", "variations": [id + 1 + k for k in range(len(variations))]}
        return linked({**raw, **own}, "http://store.test", "/products")

    def variations_of(parent: int) -> list[dict[str, Any]]:
        _, variations = originals[(parent // _SPREAD - 1) % len(originals)]
        home = f"/products/{parent}"
        return [
            linked(raw | {"id": parent + 1 + k, "parent_id": parent}, "http://store.test", f"{home}/variations", home)
            for k, raw in enumerate(variations)
        ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        query = request.query_params
        size = int(query["per_page"])
        offset = int(query["offset"]) if "offset" in query else (int(query["page"]) - 1) * size
        await asyncio.sleep(delay_s)
        if of := _VARIATIONS.fullmatch(request.url.path):
            rows = variations_of(int(of[1]))
            page, total = rows[offset : offset + size], len(rows)
        else:
            page, total = [product(n) for n in range(offset, min(offset + size, count))], count
        headers = {"x-wp-total": str(total), "x-wp-totalpages": str(-(-total // size))}
        await Response(orjson.dumps(page), headers=headers, media_type="application/json")(scope, receive, send)

    return app


@contextmanager
def running_store(count: int, delay_s: float) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "benchmarks.sync_store", str(count), str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def main() -> None:
    app = store_app(int(sys.argv[1]), float(sys.argv[2]))
    # named, so that asyncio sets TCP_NODELAY
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off"))
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
