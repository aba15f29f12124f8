"""Which values are secret, in the spellings in which they turn up."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

#: Shorter values would take ordinary words out of results.
SHORTEST = 6

#: A setting that begins so names a credential and is no secret itself.
REFERENCE = "secret://"


class Secrets:
    """Secret values, to which more can be added while the gateway runs; none is ever forgotten."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        #: The longest first: a secret that begins another one must not leave its rest.
        self.forms: tuple[str, ...] = ()
        self.add(secrets)

    def __repr__(self) -> str:
        return f"Secrets({len(self._values)})"

    def __contains__(self, value: object) -> bool:
        return value in self._values

    def add(self, secrets: Iterable[str]) -> None:
        """From now on every scrubber that has these takes them out, and each line and the password of a URL in them."""
        parts = {
            part.strip()
            for secret in secrets
            for part in (secret, *secret.splitlines(), *password_of(secret))
            if len(part.strip()) >= SHORTEST
        }
        if parts - self._values:
            self._values |= parts
            spelled = {form for secret in self._values for form in _spellings(secret)}
            self.forms = tuple(sorted(spelled, key=len, reverse=True))


def password_of(url: str) -> set[str]:
    """The password in a database's URL, where `url` is one."""
    if "://" not in url:
        return set()
    try:
        return {str(conninfo_to_dict(url).get("password") or "")} - {""}
    except ProgrammingError:
        return set()


def _spellings(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode(errors="replace")).decode()
    quoted = secret.encode(errors="replace")
    return {secret, quote(quoted, safe=""), quote_plus(quoted), json.dumps(secret)[1:-1], encoded}
