"""Links to export files: `ID.EXPIRES.SIGNATURE`, an HMAC over tenant, id and end. Who has one has the file until then.

The id is 128 random bits and names a row of the database, which says whose file it is and where; no part of a link is
ever part of a path.
"""

from __future__ import annotations

import base64
import hmac
import re
import time

_LINK = re.compile(r"([0-9a-f]{32})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


class Links:
    """Makes and reads them. `key`: no gateway but those on one database has it."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"omniops exports 1", "sha256")

    def make(self, tenant: str, id: str, expires: int) -> str:
        """`expires`: seconds since 1970."""
        return f"{id}.{expires}.{self._mac(tenant, id, expires)}"

    def id(self, link: str) -> str | None:
        """Of which export it wants to be; None: it cannot be a link, or has expired. Nothing is believed yet."""
        found = _LINK.fullmatch(link)
        return found[1] if found and int(found[2]) > time.time() else None

    def holds(self, link: str, tenant: str) -> bool:
        """It was made here, for this tenant, for its id and its end."""
        found = _LINK.fullmatch(link)
        if not found or int(found[2]) <= time.time():
            return False
        return hmac.compare_digest(self._mac(tenant, found[1], int(found[2])), found[3])

    def _mac(self, tenant: str, id: str, expires: int) -> str:
        mac = hmac.digest(self._key, f"{tenant}\n{id}\n{expires}".encode(), "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
