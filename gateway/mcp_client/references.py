"""`secret://NAME` in a tenant's own `.mcp.json`: its credentials, looked up when a connection is made.

In `env` and `headers` alone, as a whole value or as `${secret://NAME}` within one. Arguments are for every user of the
machine to read, and addresses are shown.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from gateway.credentials.known import REFERENCE
from gateway.credentials.vault import CredentialMissing

from .problems import Unusable
from .transports import Http, Stdio, Transport

#: Gives a tenant's credential by its name. Raises CredentialMissing.
Lookup: TypeAlias = Callable[[str, str], Awaitable[str]]

_REFERENCE = re.compile(r"\$\{secret://([a-z][a-z0-9_]{0,62})\}|\Asecret://([a-z][a-z0-9_]{0,62})\Z")


def check_references(transport: Transport, owner: str) -> None:
    """Raises ValueError where one stands that cannot be followed."""
    values, others = _texts(transport)
    if any(REFERENCE in text for text in others):
        raise ValueError(f"`{REFERENCE}` is understood in `env` and `headers` alone")
    for text in values:
        if REFERENCE in _REFERENCE.sub("", text):
            raise ValueError(f"write `{REFERENCE}NAME` as the whole value, or `${{{REFERENCE}NAME}}` within one")
        if REFERENCE in text and not owner:
            raise ValueError(
                f"`{REFERENCE}` names a credential of one tenant: put the server into that tenant's own file "
                "(tenants.NAME.mcp_file)"
            )


async def resolved(transport: Transport, owner: str, lookup: Lookup) -> Transport:
    """The transport with the owner's credentials put in.

    Raises:
        Unusable: one is missing, or cannot be sent.
    """
    names = {one or other for text in _texts(transport)[0] for one, other in _REFERENCE.findall(text)}
    if not names:
        return transport
    try:
        found = {name: await lookup(owner, name) for name in sorted(names)}
    except CredentialMissing as error:
        raise Unusable(f"it needs a credential: {str(error).rstrip('.')}") from None
    broken = [name for name, value in found.items() if re.search(r"[\r\n\0]", value)]
    if broken:
        raise Unusable(f"the credential {broken[0]!r} has more than one line and cannot be sent")
    if isinstance(transport, Stdio):
        return replace(transport, env=_filled(transport.env, found))
    return replace(transport, headers=_filled(transport.headers, found))


def _texts(transport: Transport) -> tuple[Iterable[str], Iterable[str]]:
    """Those that may refer, and the others."""
    match transport:
        case Stdio():
            return transport.env.values(), (transport.command, *transport.args, transport.cwd or "", *transport.env)
        case Http():
            return transport.headers.values(), (transport.url, *transport.headers)


def _filled(texts: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    return {key: _REFERENCE.sub(lambda m: found[m[1] or m[2]], text) for key, text in texts.items()}
