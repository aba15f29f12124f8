"""Who calls: a token as `Authorization: Bearer T`, `Authorization: token T` or `?token=T`."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gateway.acts import CallerRole


@dataclass(frozen=True)
class Principal:
    """A caller. `tenant`: the only one that it reaches; None reaches all."""

    name: str
    role: CallerRole
    tenant: str | None = None
    #: Set for people who decide about calls and do nothing else: the tenants whose calls, empty for all.
    approves: frozenset[str] | None = None
    #: When the token ends, in seconds since 1970; None for no end that is known.
    until: float | None = None
    #: The server's own token: its requests are not counted.
    unlimited: bool = False
    #: Of an API key, its id and the digest of its secret.
    key: tuple[str, bytes] | None = field(default=None, repr=False, compare=False)

    def may_reach(self, tenant: str) -> bool:
        return self.tenant is None or self.tenant == tenant


class Tokens:
    """The tokens that are valid. They are kept as digests; a look takes the same time whichever fits, or none."""

    def __init__(
        self,
        operator: str,
        tenants: Mapping[str, str],
        approvers: Mapping[str, tuple[str, Iterable[str]]] = MappingProxyType({}),
        metrics: str | None = None,
    ) -> None:
        """`operator`: the token that reaches every tenant; `tenants`: by name, those that reach one.

        `approvers`: by name, those of people who decide about calls, with the tenants whose calls they are.
        `metrics`: the one that reads metrics and does nothing else.

        Raises ValueError for a token that is empty or stands for two.
        """
        known = [(_digest(operator), Principal("operator", "admin", unlimited=True))]
        known += [(_digest(token), Principal(f"tenant:{name}", "tenant", name)) for name, token in tenants.items()]
        known += [
            (_digest(token), Principal(f"approver:{name}", "approver", approves=frozenset(reach)))
            for name, (token, reach) in approvers.items()
        ]
        known += [(_digest(metrics), Principal("metrics", "metrics"))] if metrics is not None else []
        if metrics == "" or not all((operator, *tenants.values(), *(token for token, _ in approvers.values()))):
            raise ValueError("an access token is empty")
        if len({digest for digest, _ in known}) < len(known):
            raise ValueError("one access token is set twice: give every tenant, and the server, one of its own")
        self._known = known

    def principal(self, token: str) -> Principal | None:
        """Whose token it is."""
        digest, found = _digest(token), None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def token_of(authorization: str, query: str) -> str:
    """The token of a request, "" for none; the header's goes before the query's."""
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() in ("bearer", "token"):
        return value.strip()
    return query


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
