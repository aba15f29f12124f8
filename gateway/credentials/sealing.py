"""Values sealed to their place: AES-256-GCM, with tenant and name authenticated beside the value.

A sealed value that is moved to another tenant or name, or changed in any bit, does not open. Each key is known by an
id that is a digest of it, so that old values open while new ones are sealed with a new key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: The only way of sealing that there is. A value marked with another one is refused, not guessed at.
FORMAT = 1
KEY_BYTES = 32
_NONCE_BYTES = 12


class SealError(Exception):
    """A value cannot be opened. The message holds nothing of it."""


class BadKey(Exception):
    """A key is none. The message does not quote it."""


@dataclass(frozen=True)
class Sealed:
    """A value as the database has it."""

    format: int
    key_id: str
    #: Nonce and ciphertext.
    data: bytes


class Keyring:
    """Keys, the newest first: it seals; all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Raises BadKey: none at all, or one of another length than 32 bytes."""
        if not keys:
            raise BadKey("There is no key.")
        for key in keys:
            if len(key) != KEY_BYTES:
                raise BadKey(f"A key has {len(key)} bytes; wanted are {KEY_BYTES}.")
        self._keys = {key_id(key): key for key in keys}
        self.ids = tuple(self._keys)

    def __repr__(self) -> str:
        return f"Keyring(ids={self.ids!r})"

    @property
    def newest(self) -> str:
        """Id of the key that seals."""
        return self.ids[0]

    def seal(self, tenant: str, name: str, value: str) -> Sealed:
        """`value` for this tenant and name."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        place = _place(FORMAT, self.newest, tenant, name)
        data = nonce + AESGCM(self._keys[self.newest]).encrypt(nonce, value.encode(), place)
        return Sealed(FORMAT, self.newest, data)

    def open(self, tenant: str, name: str, sealed: Sealed) -> str:
        """The value that was sealed for this tenant and name.

        Raises:
            SealError: another place, a key that is not here, a changed byte, an unknown format.
        """
        if sealed.format != FORMAT:
            raise SealError(f"Credential {name!r} of {tenant!r} has the unknown format {sealed.format}: set it again.")
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise SealError(
                f"Credential {name!r} of {tenant!r} is sealed with key {sealed.key_id}, which is not here "
                f"({', '.join(self.ids)}). Bring that key back, or set the credential again."
            )
        nonce, ciphertext = sealed.data[:_NONCE_BYTES], sealed.data[_NONCE_BYTES:]
        try:
            return AESGCM(key).decrypt(nonce, ciphertext, _place(sealed.format, sealed.key_id, tenant, name)).decode()
        except (InvalidTag, ValueError):
            raise SealError(
                f"Credential {name!r} of {tenant!r} was changed in the database or belongs elsewhere: set it again."
            ) from None


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def key_id(key: bytes) -> str:
    """Follows from the key, so that no key can go under another one's id."""
    return hashlib.sha256(b"omniops credential key\0" + key).hexdigest()[:16]


def key_text(key: bytes) -> str:
    """A key as settings and files have it."""
    return base64.urlsafe_b64encode(key).decode()


def read_keys(text: str) -> list[bytes]:
    """The keys of a text, one a line or separated by commas.

    Raises:
        BadKey: without quoting it.
    """
    keys = []
    for position, part in enumerate(text.replace(",", "\n").split(), 1):
        try:
            key = base64.b64decode(part.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise BadKey(f"Key {position} is not the base64 of {KEY_BYTES} bytes.")
        keys.append(key)
    return keys


def _place(version: int, key: str, tenant: str, name: str) -> bytes:
    """What is authenticated beside the value. A JSON list: no two places have the same text."""
    return json.dumps(["omniops credential", version, key, tenant, name]).encode()
