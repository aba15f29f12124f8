"""Secrets taken out of what goes to a kernel or a log."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from gateway.credentials.known import REFERENCE, Secrets, password_of
from servers.table import map_texts, texts_of

if TYPE_CHECKING:
    import pyarrow

REMOVED = "[secret]"

#: What looks like a credential whoever it belongs to; for errors and logs, not for results.
_PATTERNS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bc[ks]_[0-9A-Za-z]{16,}", REMOVED),
        (r"\bomk_[0-9a-f]{12}_[0-9A-Za-z_-]{20,}", REMOVED),
        (r"\beyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{16,}", REMOVED),
        (r"\bsk-[0-9A-Za-z_-]{16,}", REMOVED),
        (r"(?i)\b((?:basic|bearer|token)\s+)[0-9a-z+/=._~-]{8,}", rf"\1{REMOVED}"),
        (r"(?i)\b((?:consumer_key|consumer_secret|oauth_\w+|api_?key|password|token)=)[^&\s'\"]+", rf"\1{REMOVED}"),
        (r"(://[^/\s:@]*:)[^/\s@]+@", rf"\1{REMOVED}@"),
    )
)


class Scrubber:
    """Knows the configured secrets. Given `Secrets`, it knows what is added to them later, too."""

    def __init__(self, secrets: Iterable[str] | Secrets = ()) -> None:
        self._secrets = secrets if isinstance(secrets, Secrets) else Secrets(secrets)

    def known(self, text: str) -> str:
        """`text` without the configured secrets. Fast where there are none: results may have megabytes."""
        for form in self._secrets.forms:
            if form in text:
                text = text.replace(form, REMOVED)
        return text

    def table(self, table: pyarrow.Table) -> pyarrow.Table:
        """`table` without the configured secrets in its texts."""
        if not self._secrets.forms:
            return table
        forms = [form.encode() for form in self._secrets.forms]
        spoiled = {name for name, text in texts_of(table) if any(form in text for form in forms)}
        for name in spoiled:
            table = map_texts(table, name, self.known)
        return table

    def text(self, text: str) -> str:
        """`text` without the configured secrets and without anything that looks like one."""
        text = self.known(text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def tree(self, value: Any) -> Any:
        """The same for every string in nested dicts and lists."""
        return _mapped(value, self.text)

    def known_tree(self, value: Any) -> Any:
        """`known` for every string in nested dicts and lists."""
        return _mapped(value, self.known)


def _mapped(value: Any, clean: Callable[[str], str]) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {_mapped(key, clean): _mapped(item, clean) for key, item in value.items()}
        case list() | tuple():
            return [_mapped(item, clean) for item in value]
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
            # the name of a credential is no secret
            return set() if plain.startswith(REFERENCE) else {plain} | password_of(plain)
        case BaseModel():
            return secrets_of(value)
        case dict():
            return {secret for item in value.values() for secret in _secrets_in(item)}
    return set()
