"""Which addresses a crawler may speak to: those of the public internet, and no others.

Names are resolved here, every address of the answer is looked at, and the connection goes to one that was looked at:
there is no second look-up that a name server could answer otherwise (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpcore

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Host name -> its addresses.
Resolve = Callable[[str], Awaitable[Sequence[str]]]
SocketOptions = Iterable[tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]]

#: Where clouds tell machines their credentials, and what is reached over the link alone: not even for an allowed host.
METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::/32", "fe80::/10")
)
#: The only IPv6 there is outside; in it, what carries an IPv4 address or leads nowhere.
_UNICAST = ipaddress.ip_network("2000::/3")
_NOT_HOSTS = tuple(
    ipaddress.ip_network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "192.88.99.0/24", "192.0.0.0/24")
)
#: As a URL's host: what resolvers take for an IPv4 address though it is not written as one (0x7f.1, 2130706433, 127.1).
_NUMBERS = re.compile(r"(?:^|\.)(?:0[xX][0-9a-fA-F]*|[0-9]+)\.?$")


class Refused(Exception):
    """The guard does not let this request out. The message names the rule."""


def check_host(host: str) -> None:
    """
    Raises:
        Refused: a host that is written to look like something else.
    """
    if _NUMBERS.search(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise Refused(f"{host!r} is an address in disguise: write it as four decimal numbers") from None


def check_address(text: str, *, private: bool = False) -> Address:
    """The address, where a crawler may connect to it. `private`: the tenant's settings name this host.

    Raises:
        Refused
    """
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise Refused(f"{text!r} is no address") from None
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if inner is not None:
        address = inner
    if any(address in network for network in METADATA):
        raise Refused(f"{address} is an address of the link or of a cloud's metadata")
    if address.is_unspecified or address.is_multicast or not (private or _is_public(address)):
        raise Refused(f"{address} is not an address of the public internet")
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_reserved and not any(address in network for network in _NOT_HOSTS)


async def resolve(host: str) -> Sequence[str]:
    """By the machine's resolver.

    Raises:
        OSError
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens every connection of a crawler; TLS still checks the certificate against the name."""

    def __init__(self, allowed_hosts: Sequence[str] = (), resolver: Resolve = resolve) -> None:
        self._allowed = frozenset(allowed_hosts)
        self._resolve = resolver
        self._network = httpcore.AnyIOBackend()

    def allows(self, host: str, port: int) -> bool:
        """True where the tenant's settings name this host, or this host and port."""
        return host in self._allowed or f"{host}:{port}" in self._allowed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """
        Raises:
            Refused: one of the name's addresses is not to be spoken to.
            httpcore.ConnectError, httpcore.ConnectTimeout
        """
        check_host(host)
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host}: no answer from the name server") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host}: {error}") from None
        # all of them: a name with one foot inside is not to be trusted with the other
        addresses = [check_address(text, private=self.allows(host, port)) for text in found]
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise Refused("a crawler opens no sockets in the file system")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
