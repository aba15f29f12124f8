"""What is no mistake and yet seldom wise: said to the model beside what its cell came to, never in its way.

Each rule stands for something that the sandbox or the broker makes of it: a wait that nobody needs, a question that
nobody answers, a connection that is not there. That a tool writes is known to the gateway alone, so the loop around a
write is looked at there (`gateway.checking.judge`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from gateway.checking.messages import Advice
from gateway.checking.places import Places

_ASKING = {"input", "getpass", "getpass.getpass"}
_NETWORK = {"requests", "httpx", "aiohttp", "urllib.request", "urllib3", "http.client", "socket", "smtplib", "ftplib"}
#: Shorter pauses are nobody's concern, seconds.
_SLEEP_S = 1.0


def advice_of(tree: ast.Module, places: Places) -> Iterator[Advice]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=function, args=args):
                yield from _of_call(node, ast.unparse(function) if _short(function) else "", args, places)
            case ast.Import(names=aliases):
                yield from _network(node, [alias.name for alias in aliases], places)
            case ast.ImportFrom(module=str(module), level=0):
                yield from _network(node, [module], places)


def _short(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) or (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
    )


def _of_call(node: ast.Call, name: str, args: list[ast.expr], places: Places) -> Iterator[Advice]:
    if name in _ASKING:
        message = "nobody answers a cell that asks: give it the value, or ask the customer in your answer."
        yield Advice("asks", places.place(node), places.source(node), message)
    if name in ("time.sleep", "sleep"):
        match args:
            case [ast.Constant(value=int() | float() as seconds)] if seconds < _SLEEP_S and not places.looped(node):
                return
        message = "waiting counts towards the cell's time, and calls wait for their answers and limits by themselves."
        yield Advice("sleep", places.place(node), places.source(node), message)


def _network(node: ast.stmt, modules: list[str], places: Places) -> Iterator[Advice]:
    if any(module in _NETWORK or module.partition(".")[0] in _NETWORK for module in modules):
        message = "the sandbox has no network; what lies outside is reached by tools (servers.search finds them)."
        yield Advice("network", places.place(node), places.source(node), message)
