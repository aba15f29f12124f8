"""The id of a request: the client's own where it is one, else a new one."""

from __future__ import annotations

import re
import uuid

HEADER = b"x-request-id"

#: What log lines and other programs' headers hold as it is.
_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}\Z")


def request_id(sent: bytes, secrets: bytes) -> str:
    """`sent`: the client's, b"" for none. One that is part of `secrets`, where the request has its token, is not
    taken: ids are logged."""
    if _ID.match(sent) and (len(sent) < 8 or sent not in secrets):
        return sent.decode()
    return uuid.uuid4().hex
