"""What a tenant's crawls may do and take. Made by the gateway from settings alone, never from a call's arguments."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible `/v1/embeddings`. Never logged, never sent to a kernel."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    #: Inputs and tokens of one request, and requests under way at once.
    inputs: int = 2048
    tokens: int = 300_000
    in_flight: int = 4
    timeout_s: float = 60.0
    attempts: int = 6
    #: US dollars per million tokens.
    price: float = 0.0


@dataclass(frozen=True)
class Rules:
    """Limits of one crawl; sizes in bytes, times in seconds."""

    #: `host` or `host:port` that may be private, such as a shop's on the own network; nothing else may.
    allowed_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    user_agent: str = "OmniOpsBot/1.0"
    max_pages: int = 2_000
    max_depth: int = 10
    in_flight: int = 4
    requests_per_s: float = 4.0
    crawl_s: float = 3_600.0
    page_bytes: int = 4 * 1024 * 1024
    page_s: float = 30.0
    read_s: float = 10.0
    parse_s: float = 10.0
    redirects: int = 5
    attempts: int = 3
    #: The longest wait that a server may ask for; what asks for more counts as failed.
    longest_wait_s: float = 120.0
    links_per_page: int = 2_000
    sitemap_urls: int = 20_000
    #: URLs that one crawl keeps in mind; links beyond them are dropped, and nothing is removed after it.
    frontier_urls: int = 100_000
    chunk_tokens: int = 220
    chunks_per_page: int = 500
    #: Chunks that are embedded and stored together; a killed crawl repeats at most those under way.
    batch_chunks: int = 512
    #: None: the local model.
    endpoint: Endpoint | None = None
