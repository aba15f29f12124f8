"""Finding tools among ten thousand, and what the agent's prompt costs whatever their number.

Known items: the summary of an operation, as its description has it, has to bring that very operation; many have the
same summary as another. Natural: the questions of `questions.tsv`, in words that people use, written before any result
was looked at. The ranker was tuned with `questions_dev.tsv` and
`questions_train.tsv`, and with known items that are none of these. The
operations are a tenant's foreign tools, in the gateway's own catalogue and search. The peer is plain BM25 (the library
bm25s) with the same words of each operation.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import bm25s
import Stemmer

from benchmarks.catalogue import CACHE, Operation, operations
from benchmarks.figure import Figure, quantile
from benchmarks.support import figure_of
from gateway.agent.cells import RUN_CELL
from gateway.agent.prompt import cells_prompt
from gateway.settings import AgentSettings, FindingSettings
from gateway.tokens import count_message, count_tools
from gateway.tool_catalogue import Catalogue
from gateway.tool_search import ToolSearch
from gateway.tool_vectors import ToolVectors
from servers.catalog.embedding import MiniLm
from servers.foreign.names import parameter_name
from servers.foreign.record import Definition
from servers.foreign.tool import foreign_tool
from servers.registry import Registry, load_registry
from servers.tool import EVERYBODY, Tool

SIZES = (10, 1_000, 10_000)
IDS = (
    "search_10k_p50_ms",
    "search_10k_recall_1",
    "search_10k_recall_5",
    "search_natural_recall_1",
    "search_natural_recall_5",
    *(f"prompt_tokens_{size}" for size in SIZES),
)

TENANT, ROLE = "bench", "agent"
_KNOWN, _SEED = 1_000, 4
_BM25 = "plain BM25 (bm25s)"

#: The names that a search finds, best first.
Search = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Asked:
    query: str
    right: Collection[str]


def run(ids: set[str]) -> list[Figure]:
    """Measure the figures that are wanted; all together take some minutes, the first time a download more."""
    every = operations()
    tools = {operation.qualified_name: _tool(operation) for operation in every}
    figures = []
    if any(id.startswith("search") for id in ids):
        figures += _searches(every, tools, ids)
    for size in SIZES:
        if f"prompt_tokens_{size}" in ids:
            figures.append(_prompt(size, list(tools.values())[:size]))
    return figures


def _searches(every: Sequence[Operation], tools: dict[str, Tool], ids: set[str]) -> list[Figure]:
    ours, peers = _ours(every, tools), _bm25(every)
    known, natural = known_items(every), questions("questions.tsv")
    figures = []
    if "search_10k_p50_ms" in ids:  # first: what was asked before is answered sooner
        queries = [asked.query for asked in natural]
        figures.append(figure_of("search_10k_p50_ms", _p50_ms(ours, queries), "ms", _p50_ms(peers, queries), _BM25))
    for kind, asked in (("10k", known), ("natural", natural)):
        for depth in (1, 5):
            id = f"search_{kind}_recall_{depth}"
            if id in ids:
                value, peer = (recall(search, asked, depth) for search in (ours, peers))
                figures.append(figure_of(id, value, "share", peer, _BM25))
    return figures


def known_items(every: Sequence[Operation]) -> list[Asked]:
    having = [operation for operation in every if operation.summary]
    chosen = random.Random(_SEED).sample(having, _KNOWN)
    return [Asked(operation.summary, {operation.qualified_name}) for operation in chosen]


def questions(name: str) -> list[Asked]:
    lines = Path(__file__).with_name(name).read_text().splitlines()
    return [Asked(question, set(right.split())) for question, _, right in (line.partition("\t") for line in lines)]


def recall(search: Search, asked: Sequence[Asked], depth: int) -> float:
    """The share of questions of which a right answer is among the first `depth`."""
    return sum(not set(search(each.query)[:depth]).isdisjoint(each.right) for each in asked) / len(asked)


def _p50_ms(search: Search, queries: Sequence[str]) -> float:
    times = []
    for query in queries:
        began = time.perf_counter()
        search(query)
        times.append((time.perf_counter() - began) * 1000)
    return quantile(times, 0.5)


def _ours(every: Sequence[Operation], tools: dict[str, Tool]) -> Search:
    """As a kernel's question is answered: among the tools of its tenant that its role may call.

    Tools' vectors are kept beside the operations; the first time they take a minute or two of one processor.
    """
    catalogue = Catalogue(Registry([], {}))
    catalogue.put(TENANT, tools.values(), {operation.server: operation.title for operation in every})
    loop = asyncio.Runner()
    finder = ToolSearch(catalogue, ToolVectors(MiniLm(), CACHE.with_name("tool-vectors.sqlite"), FindingSettings()))
    wire = {tool.qualified_name: name for name, tool in tools.items()}

    def search(query: str) -> list[str]:
        return [wire[tool.qualified_name] for tool in loop.run(finder.find(TENANT, ROLE, query, 10))]

    if not loop.run(finder.settled(TENANT)):
        raise RuntimeError("the tools have no vectors: see the log")
    return search


def _bm25(every: Sequence[Operation]) -> Search:
    stemmer = Stemmer.Stemmer("english")

    def split(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(split([_words(operation) for operation in every]), show_progress=False)

    def search(query: str) -> list[str]:
        found, _ = index.retrieve(split([query]), k=10, show_progress=False)
        return [every[i].qualified_name for i in found[0]]

    return search


def _words(operation: Operation) -> str:
    """All that there is of it, identifiers split into words."""
    parameters = " ".join(f"{p.name} {p.description}" for p in operation.parameters)
    names = f"{operation.name} {operation.server} {operation.title} {parameters}"
    return f"{re.sub(r'(?<=[a-z0-9])(?=[A-Z])|[_.]', ' ', names)} {operation.doc}"


async def _nothing(*_: Any) -> None: ...


def _tool(operation: Operation) -> Tool:
    """Its parameters by the names that they get; of those that get the same, as path and body may have them, one."""
    properties = {
        parameter_name(p.name): {"type": "string", "description": p.description} for p in operation.parameters
    }
    required = sorted({parameter_name(p.name) for p in operation.parameters if p.required})
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    definition = Definition(operation.name, operation.doc, schema)
    return foreign_tool(operation.server, definition, call=_nothing, roles=EVERYBODY)


@cache
def _built_in() -> Registry:
    return load_registry()


def _prompt(size: int, tools: Sequence[Tool]) -> Figure:
    """Of a conversation's first request all but the customer's words, beside the definitions of the same tools."""
    more = Registry([*_built_in(), *tools], _built_in().documents | {tool.server: "" for tool in tools})
    settings = AgentSettings()
    prompt = cells_prompt(more, settings.everyday_tools, shop="acme", max_servers=settings.prompt_servers)
    ours = count_message({"role": "system", "content": prompt}) + count_tools([RUN_CELL])
    peer = count_tools(more.openai_tools(tool.qualified_name for tool in tools))
    return figure_of(f"prompt_tokens_{size}", ours, "tokens", peer, "full definitions of the same tools")
