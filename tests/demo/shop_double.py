"""Helpers of these tests: the shop double in a process of its own, and a stand-in for kernel and broker."""

from __future__ import annotations

import asyncio
import base64
import builtins
import contextlib
import io
import itertools
import os
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from demo.model.script import Call
from servers.context import Shop, ToolContext
from servers.errors import ToolDenied, ToolError
from servers.registry import Registry, load_registry

KEY, SECRET, TOKEN = "ck_demo", "cs_demo", "double-token"


@dataclass(frozen=True)
class ShopDouble:
    url: str
    http: httpx.Client

    @property
    def shop(self) -> Shop:
        return Shop(self.url, KEY, SECRET)

    def ask(self, method: str, path: str, *, key: str = KEY, secret: str = SECRET, **more: Any) -> httpx.Response:
        """As behind a proxy that speaks https, with Basic authentication."""
        basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
        headers = {"x-forwarded-proto": "https", "authorization": f"Basic {basic}"} | more.pop("headers", {})
        return self.http.request(method, f"{self.url}/wp-json/wc/v3{path}", headers=headers, **more)

    def state(self) -> dict[str, Any]:
        answer = self.http.get(f"{self.url}/_double/state", headers={"authorization": f"Bearer {TOKEN}"})
        answer.raise_for_status()
        state: dict[str, Any] = orjson.loads(answer.content)
        return state

    def reset(self) -> None:
        self.http.post(f"{self.url}/_double/reset", headers={"authorization": f"Bearer {TOKEN}"}).raise_for_status()


@contextlib.contextmanager
def running_shop() -> Iterator[ShopDouble]:
    environment = os.environ | {
        "SHOP_CONSUMER_KEY": KEY,
        "SHOP_CONSUMER_SECRET": SECRET,
        "SHOP_CONTROL_TOKEN": TOKEN,
        "SHOP_MORE_KEYS": "ck_reads:cs_reads:read ck_writes:cs_writes:write",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "demo.shop"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), line
            with httpx.Client(verify=False) as http:
                yield ShopDouble(line.removeprefix("listening on ").strip(), http)
        finally:
            process.terminate()
            process.wait(timeout=10)


@dataclass
class Pins:
    customer: int | None = None
    customer_required: bool = True

    async def pin_customer(self, customer_id: int) -> None:
        if self.customer not in (None, customer_id):
            raise ToolDenied("Another customer is pinned.")
        self.customer = customer_id


@dataclass
class Conversation:
    """Runs cells in this process, with the product's own tools against the shop; notes the calls they make."""

    shop: Shop
    loop: asyncio.AbstractEventLoop
    http: httpx.AsyncClient
    registry: Registry = field(default_factory=load_registry)
    pins: Pins = field(default_factory=Pins)
    calls: list[Call] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    namespace: dict[str, Any] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if name == "support.reply":
            self.replies.append(arguments["text"])
            return None
        self.calls.append(Call(name, dict(arguments)))
        if name == "support.hand_over":  # needs the database, which these tests are not about
            return {"id": 1, "status": "waiting"}
        tool, checked = self.registry.resolve(name, arguments)
        context = ToolContext(
            tenant="demo",
            session="test",
            pins=self.pins,
            idempotency_key=f"key-{next(self.numbers)}",
            resuming=False,
            http=self.http,
            shop=self.shop,
        )
        return self.loop.run_until_complete(tool.call(context, checked))

    def run(self, code: str) -> tuple[str, ToolError | None]:
        """What the cell printed, and the tool's error that ended it. Other errors are raised."""
        shown = io.StringIO()
        space = self.namespace
        space["__builtins__"] = vars(builtins) | {"__import__": self._import}
        try:
            with contextlib.redirect_stdout(shown):
                exec(compile(code, "<cell>", "exec"), space)
        except ToolError as error:
            return shown.getvalue(), error
        return shown.getvalue(), None

    def _import(self, name: str, *rest: Any) -> Any:
        prefix, _, server = name.partition(".")
        if prefix != "servers" or server == "errors":
            return builtins.__import__(name, *rest)
        module = types.ModuleType(name)
        for tool in self.registry.of_server(server):
            setattr(module, tool.name, lambda *, _name=tool.qualified_name, **given: self.call(_name, given))
        return module
