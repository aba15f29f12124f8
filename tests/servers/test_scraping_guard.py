"""The crawler's way out, attacked: whatever a URL, a name server or a redirect says, it leads nowhere inside."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpcore
import pytest

from servers.scraping.addresses import GuardedBackend, Refused, check_address, check_host
from servers.scraping.fetch import Fetcher, NotFetched, TooLarge
from servers.scraping.rules import Rules
from servers.scraping.urls import is_page, normal

QUICK = Rules(attempts=1, requests_per_s=1_000.0, page_s=20.0, read_s=10.0)

INSIDE = (
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.8",
    "172.16.4.4",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::10.0.0.1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "localhost",
)


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_inside_is_spoken_to(address: str) -> None:
    with pytest.raises(Refused):
        check_address(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"])
def test_the_public_internet_is(address: str) -> None:
    check_address(address)


def test_an_allowed_host_may_be_private_and_never_a_clouds_metadata() -> None:
    for address in ("127.0.0.1", "10.0.0.8", "fd12::1"):
        check_address(address, private=True)
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "ff02::1"):
        with pytest.raises(Refused):
            check_address(address, private=True)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0x7f.1", "017700000001", "127.1", "0177.0.0.1", "1.2.3"])
def test_an_address_in_disguise_is_refused_before_anything_resolves_it(host: str) -> None:
    with pytest.raises(Refused, match="disguise"):
        check_host(host)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com:6379/_FLUSHALL",
        "data:text/html,hello",
        "javascript:alert(1)",
        "//example.com/",
        "unix:///var/run/docker.sock",
        "http://user:secret@example.com/",
        "http://example.com@169.254.169.254/",
        "http://@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://127.0.0.1\\.example.com/",
        "http://127.0.0.1%00.example.com/",
        "http://exa mple.com/",
        "http:///path",
        "http://[::1",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://example.com/" + "a" * 3_000,
    ],
)
def test_a_url_that_is_not_plain_http_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        normal(url)


def test_a_url_has_one_form() -> None:
    assert normal("HTTP://Example.COM.:80/a b?utm_source=x&q=1#top") == "http://example.com/a%20b?q=1"
    assert normal("../c", base="https://example.com/a/b") == "https://example.com/c"
    assert normal("https://bücher.example/") == "https://xn--bcher-kva.example/"
    assert not is_page("https://example.com/price-list.pdf")
    assert is_page("https://example.com/version-1.2/notes")


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def raw_server(answer: bytes | Handler) -> AsyncIterator[int]:
    """A server that gives this answer, or does this, whatever it is asked; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if callable(answer):
                await answer(reader, writer)  # type: ignore[misc]
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def fetching(rules: Rules, answers: Sequence[Sequence[str]] = (("127.0.0.1",),)) -> AsyncIterator[Fetcher]:
    """A fetcher whose name server gives these answers, one after the other, the last one for ever."""
    left = list(answers)

    async def resolver(host: str) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    fetcher = Fetcher(rules, resolver=resolver)
    try:
        yield fetcher
    finally:
        await fetcher.close()


def allowing(*hosts: str, **changes: object) -> Rules:
    from dataclasses import replace

    return replace(QUICK, allowed_hosts=hosts, **changes)  # type: ignore[arg-type]


def page(body: bytes, *headers: str) -> bytes:
    head = "\r\n".join(("HTTP/1.1 200 OK", "content-type: text/html", "connection: close", *headers))
    return head.encode() + b"\r\n\r\n" + body


def redirect(url: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()


async def test_by_default_nothing_on_this_machine_is_fetched() -> None:
    async with raw_server(page(b"secret")) as port:
        for url in (f"http://127.0.0.1:{port}/", f"http://localhost:{port}/", f"http://[::1]:{port}/"):
            fetcher = Fetcher(Rules(attempts=1, ports=(80, 443, port)))
            with pytest.raises(Refused):
                await fetcher.get(url)
            await fetcher.close()


async def test_a_port_that_is_not_named_is_not_spoken_to() -> None:
    async with fetching(QUICK, [["93.184.215.14"]]) as fetcher:
        with pytest.raises(Refused, match="port 6379"):
            await fetcher.get("http://example.com:6379/")
        assert fetcher.traffic.requests == 0


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://localhost:1/",
        "http://2852039166/",
        "file:///etc/passwd",
        "http://a:b@127.0.0.1/",
    ],
)
async def test_a_redirect_inside_is_not_followed(target: str) -> None:
    async with raw_server(redirect(target)) as port, fetching(allowing(f"shop.example:{port}")) as fetcher:
        with pytest.raises(Refused):
            await fetcher.get(f"http://shop.example:{port}/")


async def test_the_name_is_looked_up_once_for_check_and_connection() -> None:
    """A name server that answers otherwise the second time changes nothing: there is no second time."""
    asked: list[str] = []
    async with raw_server(page(b"secret")) as port:

        async def rebinding(host: str) -> Sequence[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) > 1 else ["203.0.113.5", "127.0.0.1"]

        backend = GuardedBackend(resolver=rebinding)
        with pytest.raises(Refused):
            await backend.connect_tcp("rebind.example", port, timeout=5)
        assert asked == ["rebind.example"]


async def test_the_connection_goes_to_the_address_that_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own resolver, which would give another address by now, is not asked again."""
    went: list[str] = []

    async def connect(self: object, host: str, *args: object, **kwargs: object) -> object:
        went.append(host)
        raise httpcore.ConnectError("nobody there")

    async def poisoned(*args: object, **kwargs: object) -> object:
        raise AssertionError("looked up a second time")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", poisoned)

    async def resolver(host: str) -> Sequence[str]:
        return ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]

    with pytest.raises(httpcore.ConnectError):
        await GuardedBackend(resolver=resolver).connect_tcp("example.com", 443)
    assert went == ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]


async def test_each_redirect_is_resolved_and_checked_anew() -> None:
    """The host was fine when it was asked first, and is inside after the redirect to itself."""
    async with raw_server(redirect("/again")) as port:
        rules = allowing(f"shop.example:{port}")
        async with fetching(rules, [["127.0.0.1"], ["169.254.169.254"]]) as fetcher:
            with pytest.raises(Refused, match="metadata"):
                await fetcher.get(f"http://shop.example:{port}/")


async def test_a_redirect_to_a_public_name_with_an_inner_address_is_refused() -> None:
    async with raw_server(redirect("http://other.example/")) as port:
        rules = allowing(f"shop.example:{port}")
        async with fetching(rules, [["127.0.0.1"], ["10.0.0.8"]]) as fetcher:
            with pytest.raises(Refused, match="public internet"):
                await fetcher.get(f"http://shop.example:{port}/")


async def test_redirects_end() -> None:
    async with raw_server(redirect("/next")) as port, fetching(allowing(f"shop.example:{port}")) as fetcher:
        with pytest.raises(Refused, match="5 redirects"):
            await fetcher.get(f"http://shop.example:{port}/")
        assert fetcher.traffic.requests == 6


async def test_a_page_is_read_up_to_its_limit_and_no_further() -> None:
    wrote = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal wrote
        writer.write(page(b""))
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            wrote += 65_536

    async with raw_server(endless) as port, fetching(allowing(f"shop.example:{port}", page_bytes=1_000_000)) as fetcher:
        with pytest.raises(TooLarge):
            await fetcher.get(f"http://shop.example:{port}/")
    assert wrote < 64_000_000


async def test_a_bomb_is_unpacked_up_to_the_limit_and_no_further() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(30)) + packer.flush()
    answer = page(bomb, "content-encoding: gzip", f"content-length: {len(bomb)}")
    async with raw_server(answer) as port, fetching(allowing(f"shop.example:{port}")) as fetcher:
        with pytest.raises(TooLarge, match="unpacked"):
            await fetcher.get(f"http://shop.example:{port}/")
        assert fetcher.traffic.unpacked == 0


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd"])
async def test_what_was_not_asked_for_is_not_unpacked(encoding: str) -> None:
    answer = page(gzip.compress(b"x"), f"content-encoding: {encoding}")
    async with raw_server(answer) as port, fetching(allowing(f"shop.example:{port}")) as fetcher:
        with pytest.raises(Refused, match="not asked for"):
            await fetcher.get(f"http://shop.example:{port}/")


async def test_a_file_is_left_before_its_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/pdf\r\ncontent-length: 99999999\r\n\r\n"
    async with raw_server(answer) as port, fetching(allowing(f"shop.example:{port}")) as fetcher:
        with pytest.raises(Refused, match="application/pdf is no page"):
            await fetcher.get(f"http://shop.example:{port}/")


async def test_a_page_that_drips_is_given_up() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(page(b""))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    rules = {"page_s": 0.5}
    async with raw_server(drip) as port, fetching(allowing(f"shop.example:{port}", **rules)) as fetcher:
        with pytest.raises(NotFetched, match="TimeoutError"):
            await fetcher.get(f"http://shop.example:{port}/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    ],
)
async def test_nonsense_is_a_page_that_could_not_be_had(answer: bytes) -> None:
    async with raw_server(answer) as port, fetching(allowing(f"shop.example:{port}")) as fetcher:
        with pytest.raises(NotFetched):
            await fetcher.get(f"http://shop.example:{port}/")


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        async with raw_server(page(b"direct")) as port, fetching(allowing(f"shop.example:{port}")) as fetcher:
            assert (await fetcher.get(f"http://shop.example:{port}/")).body == b"direct"
