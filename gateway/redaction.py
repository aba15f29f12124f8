"""The last net below secrets: their values never reach a transcript or a model, whatever a tool's error quoted."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from gateway.settings import Settings

#: Shorter ones would tear ordinary text apart, and protect nothing.
_MIN_CHARS = 8
_SHOWN = "[secret]"


class Redactor:
    """Replaces known secrets in texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        values = {form for secret in secrets if len(secret) >= _MIN_CHARS for form in (secret, quote(secret, safe=""))}
        longest_first = sorted(values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if values else None

    def __call__(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(_SHOWN, text)


def secrets_of(settings: Settings, token: str = "") -> Iterator[str]:
    """Every secret of the configuration, as it is and as requests carry it; `token` is the gateway's own."""
    yield token
    for secret in (settings.server.token, settings.openai_api_key):
        yield _shown(secret)
    url = _shown(settings.database_url)
    yield urlsplit(url).password or "" if "://" in url else url
    for tenant in settings.tenants.values():
        yield _shown(tenant.token)
        if tenant.shop is not None:
            key, password = _shown(tenant.shop.consumer_key), _shown(tenant.shop.consumer_secret)
            yield from (key, password, base64.b64encode(f"{key}:{password}".encode()).decode())


def _shown(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
