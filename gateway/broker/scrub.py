"""Secrets taken out of what goes to a kernel or a log."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, SecretStr

REMOVED = "[secret]"

#: Shorter values would take ordinary words out of results.
SHORTEST = 6

#: What looks like a credential whoever it belongs to; for errors and logs, not for results.
_PATTERNS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bc[ks]_[0-9A-Za-z]{16,}", REMOVED),
        (r"\bsk-[0-9A-Za-z_-]{16,}", REMOVED),
        (r"(?i)\b((?:basic|bearer|token)\s+)[0-9a-z+/=._~-]{8,}", rf"\1{REMOVED}"),
        (r"(?i)\b((?:consumer_key|consumer_secret|oauth_\w+|api_?key|password|token)=)[^&\s'\"]+", rf"\1{REMOVED}"),
        (r"(://[^/\s:@]*:)[^/\s@]+@", rf"\1{REMOVED}@"),
    )
)


class Scrubber:
    """Knows the configured secrets, in the spellings in which they turn up."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spelled = {form for secret in secrets if len(secret) >= SHORTEST for form in _spellings(secret)}
        # The longest first: a secret that begins another one must not leave its rest.
        self._known = sorted(spelled, key=len, reverse=True)

    def known(self, text: str) -> str:
        """`text` without the configured secrets. Fast where there are none: results may have megabytes."""
        for form in self._known:
            if form in text:
                text = text.replace(form, REMOVED)
        return text

    def text(self, text: str) -> str:
        """`text` without the configured secrets and without anything that looks like one."""
        text = self.known(text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def tree(self, value: Any) -> Any:
        """The same for every string in nested dicts and lists."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.tree(key): self.tree(item) for key, item in value.items()}
            case list() | tuple():
                return [self.tree(item) for item in value]
        return value


def secrets_of(settings: BaseModel) -> set[str]:
    """Every secret value of the settings; of a database URL its password, of a store's keys their Basic form too."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        found |= _secrets_in(getattr(settings, name))
    key, secret = getattr(settings, "consumer_key", None), getattr(settings, "consumer_secret", None)
    if isinstance(key, SecretStr) and isinstance(secret, SecretStr):
        pair = f"{key.get_secret_value()}:{secret.get_secret_value()}"
        found.add(base64.b64encode(pair.encode()).decode())
    return found


def _secrets_in(value: object) -> set[str]:
    match value:
        case SecretStr():
            plain = value.get_secret_value()
            return {plain} | _password_of(plain)
        case BaseModel():
            return secrets_of(value)
        case dict():
            return {secret for item in value.values() for secret in _secrets_in(item)}
    return set()


def _password_of(url: str) -> set[str]:
    if "://" not in url:
        return set()
    try:
        return {str(conninfo_to_dict(url).get("password") or "")} - {""}
    except ProgrammingError:
        return set()


def _spellings(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    return {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], encoded}
