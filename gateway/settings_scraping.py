"""Settings of a tenant's crawls, and of what embeds their pages."""

from __future__ import annotations

from pydantic import Field, HttpUrl, SecretStr

from .settings_group import Group


class EndpointSettings(Group):
    url: HttpUrl = Field(description="OpenAI-compatible base URL, such as https://api.openai.com/v1.")
    key: SecretStr | None = Field(None, description="Its API key.")
    model: str = Field(
        "text-embedding-3-small", max_length=200, description="A model that gives vectors of 384 dimensions when asked."
    )
    inputs: int = Field(2048, ge=1, le=2048, description="Texts of one request.")
    tokens: int = Field(300_000, ge=1000, description="Tokens of one request.")
    in_flight: int = Field(4, ge=1, le=64, description="Requests under way at once.")
    timeout_s: float = Field(60.0, gt=0, description="Time of one request.")
    attempts: int = Field(6, ge=1, le=20, description="How often a request is sent before the crawl breaks off.")
    price: float = Field(0.0, ge=0, description="US dollars per million tokens, for budgets.")


class ScrapingSettings(Group):
    allowed_hosts: tuple[str, ...] = Field(
        (), description="`host` or `host:port` that may have a private address, and any port; others may not."
    )
    ports: tuple[int, ...] = Field((80, 443), min_length=1, description="Ports of the public internet.")
    user_agent: str = Field("OmniOpsBot/1.0", pattern=r"^[A-Za-z][\x20-\x7e]{0,199}$", description="Said to sites.")
    max_pages: int = Field(2_000, ge=1, description="Pages of one crawl.")
    max_depth: int = Field(10, ge=0, description="Links from the start.")
    in_flight: int = Field(4, ge=1, le=64, description="Pages that are fetched at once.")
    requests_per_s: float = Field(
        4.0, gt=0, description="Requests to a site started per second; robots.txt may say less."
    )
    crawl_s: float = Field(3_600.0, gt=0, description="Time after which a crawl ends; the next call goes on.")
    page_mb: float = Field(4.0, gt=0, description="A page, unpacked, MiB.")
    page_s: float = Field(30.0, gt=0, description="Time for one page.")
    read_s: float = Field(10.0, gt=0, description="Time to connect, and between two packets.")
    parse_s: float = Field(10.0, gt=0, description="Processor time to read a page's markup.")
    redirects: int = Field(5, ge=0, le=20, description="Redirects that are followed.")
    attempts: int = Field(3, ge=1, le=20, description="How often a page is asked for that fails.")
    longest_wait_s: float = Field(120.0, ge=0, description="A server that asks for a longer wait has failed.")
    links_per_page: int = Field(2_000, ge=1, description="Links of a page that are followed.")
    sitemap_urls: int = Field(20_000, ge=0, description="Pages that are taken from sitemaps.")
    frontier_urls: int = Field(100_000, ge=1, description="URLs that one crawl keeps in mind, visited or not.")
    chunk_tokens: int = Field(
        220, ge=50, le=2000, description="Tokens of one piece of text; the local model reads 256."
    )
    chunks_per_page: int = Field(500, ge=1, description="Pieces of one page.")
    batch_chunks: int = Field(512, ge=1, le=20_000, description="Pieces that are embedded and stored together.")
    endpoint: EndpointSettings | None = Field(None, description="What embeds; None: the local model.")
