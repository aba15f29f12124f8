"""Vectors of chunks: by the local model, or by an OpenAI-compatible endpoint within its limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from ..errors import RateLimited, UpstreamError
from ..retry_after import retry_after
from .rules import Endpoint
from .waiting import wait_for

if TYPE_CHECKING:
    from bpe_openai import Encoding

#: What the table holds.
DIMENSIONS = 384
_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
#: Texts that the local model takes at once: 32 long ones would take 800 MiB, and no less time.
_LOCAL = 4
_LONGEST_WAIT_S = 120.0


class PageEmbedder(Protocol):
    """Turns texts into unit vectors of DIMENSIONS floats."""

    #: Of the model: vectors of different names are not compared.
    name: str
    #: What it has been asked, in requests and tokens.
    calls: int
    retries: int
    tokens: int

    def count(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """
        Raises:
            UpstreamError, RateLimited
        """
        ...


class LocalModel(Protocol):
    """What `servers.catalog.embedding.MiniLm` has."""

    dimensions: int

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...

    def token_counts(self, texts: Sequence[str]) -> list[int]: ...


class Local:
    """The local model as a PageEmbedder."""

    name = "all-MiniLM-L6-v2"

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self.calls = self.retries = self.tokens = 0
        self._turn = asyncio.Lock()

    def count(self, texts: Sequence[str]) -> Sequence[int]:
        return self._model.token_counts(texts)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.calls += 1
        vectors: dict[int, list[float]] = {}
        # of like length together, so that little is padded
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), _LOCAL):
            some = order[start : start + _LOCAL]
            async with self._turn:
                vectors |= zip(some, await self._model.embed([texts[i] for i in some]), strict=True)
        return [vectors[i] for i in range(len(texts))]


class Remote:
    """An endpoint as a PageEmbedder: as few requests as its limits allow, several under way."""

    def __init__(self, endpoint: Endpoint, http: httpx.AsyncClient) -> None:
        self.name = f"{endpoint.model}@{DIMENSIONS}"
        self.calls = self.retries = self.tokens = 0
        self._endpoint = endpoint
        self._http = http
        self._slots = asyncio.Semaphore(endpoint.in_flight)

    def count(self, texts: Sequence[str]) -> Sequence[int]:
        encoding = _encoding()
        return [len(encoding.encode_ordinary(text)) for text in texts]

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        batches = list(batched(texts, self.count(texts), self._endpoint.inputs, self._endpoint.tokens))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._batch(batch)) for batch in batches]
        except* (UpstreamError, RateLimited) as failures:
            raise next(_leaves(failures)) from None
        return [vector for task in tasks for vector in task.result()]

    async def _batch(self, texts: Sequence[str]) -> list[list[float]]:
        async with self._slots:
            for attempt in range(1, self._endpoint.attempts + 1):
                self.calls += 1
                try:
                    answer = await self._ask(texts)
                except httpx.TransportError as error:
                    failure: UpstreamError | RateLimited = UpstreamError(
                        f"The embeddings endpoint cannot be reached ({type(error).__name__}).",
                        hint="Pages that were stored stay; the next call goes on from there.",
                    )
                    asked = None
                else:
                    if answer.status_code == 200:
                        return self._vectors(answer, len(texts))
                    failure, asked = _refusal(answer)
                    if answer.status_code not in _TRY_AGAIN or (asked or 0) > _LONGEST_WAIT_S:
                        raise failure
                if attempt < self._endpoint.attempts:
                    self.retries += 1
                    await asyncio.sleep(wait_for(attempt, asked))
            raise failure

    async def _ask(self, texts: Sequence[str]) -> httpx.Response:
        endpoint = self._endpoint
        headers = {"authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        body = {"model": endpoint.model, "input": list(texts), "dimensions": DIMENSIONS, "encoding_format": "float"}
        return await self._http.post(
            f"{endpoint.url.rstrip('/')}/embeddings",
            json=body,
            headers=headers,
            timeout=endpoint.timeout_s,
            follow_redirects=False,  # the key goes where the settings say
        )

    def _vectors(self, answer: httpx.Response, wanted: int) -> list[list[float]]:
        try:
            body = answer.json()
            rows = sorted(body["data"], key=lambda row: row["index"])
            vectors = [[float(x) for x in row["embedding"]] for row in rows]
            positions = [row["index"] for row in rows]
        except (ValueError, KeyError, TypeError):
            raise UpstreamError("The embeddings endpoint's answer is not what OpenAI's API answers.") from None
        if positions != list(range(wanted)):
            raise UpstreamError(f"The embeddings endpoint gave {len(vectors)} vectors for {wanted} texts.")
        self.tokens += _used(body)
        return [unit(vector) for vector in vectors]


def batched(texts: Sequence[str], tokens: Sequence[int], most_inputs: int, most_tokens: int) -> Iterator[Sequence[str]]:
    """The texts, in order, in as few requests as these limits allow; one that is over the limit alone goes alone."""
    start = size = 0
    for i, n in enumerate(tokens):
        if i > start and (i - start >= most_inputs or size + n > most_tokens):
            yield texts[start:i]
            start, size = i, 0
        size += n
    if start < len(texts):
        yield texts[start:]


def unit(vector: Sequence[float]) -> list[float]:
    """At length one.

    Raises:
        UpstreamError: not what the table holds.
    """
    if len(vector) != DIMENSIONS:
        raise UpstreamError(
            f"The embeddings endpoint gives vectors of {len(vector)} dimensions; {DIMENSIONS} are kept.",
            hint=f"Choose a model that takes `dimensions: {DIMENSIONS}`, such as text-embedding-3-small.",
        )
    length = math.sqrt(math.fsum(x * x for x in vector))
    if not 0 < length < math.inf:
        raise UpstreamError("The embeddings endpoint gave a vector without a direction.")
    return [x / length for x in vector]


def _refusal(answer: httpx.Response) -> tuple[UpstreamError | RateLimited, float | None]:
    asked = retry_after(answer.headers)
    status = answer.status_code
    if status == 429:
        return RateLimited("The embeddings endpoint asks to wait.", retry_after=asked), asked
    # its words are left out: some endpoints repeat the key that they refuse
    return UpstreamError(f"The embeddings endpoint answers {status}.", hint=_HINTS.get(status, "")), asked


_HINTS: Mapping[int, str] = {
    400: "Its model may take other limits: see scraping.endpoint in the settings.",
    401: "Its key is wrong: see scraping.endpoint.key in the settings.",
    403: "Its key may not do this: see scraping.endpoint.key in the settings.",
    404: "Its url or model is wrong: see scraping.endpoint in the settings.",
    413: "Set scraping.endpoint.tokens or .inputs lower.",
}


def _used(body: Any) -> int:
    usage = body.get("usage")
    found = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return found if isinstance(found, int) and found > 0 else 0


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


@cache
def _encoding() -> Encoding:
    import bpe_openai  # loads its tables

    return bpe_openai.get_encoding("cl100k_base")
