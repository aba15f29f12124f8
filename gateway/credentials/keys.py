"""Where the keys are: in the settings, or in a file that is made at the first start."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gateway.settings import CredentialSettings
from gateway.transcripts.store import write_atomically

from .sealing import BadKey, Keyring, key_text, new_key, read_keys


class KeysError(Exception):
    """The keys cannot be used. The message says which file or setting, and what to do; it quotes no key."""


class Keys:
    """The gateway's keys. Methods block briefly."""

    def __init__(self, settings: CredentialSettings, data_dir: Path) -> None:
        self._configured = settings.key.get_secret_value() if settings.key else ""
        self.path = settings.key_file or data_dir / "credentials.key"

    @property
    def in_settings(self) -> bool:
        """True where this program cannot change them."""
        return bool(self._configured)

    def load(self) -> Keyring:
        """The keys; a first one is made where there is no file.

        Raises:
            KeysError
        """
        try:
            if self._configured:
                return Keyring(read_keys(self._configured))
            if not self.path.exists():
                self._write([new_key()])
            return Keyring(self._read())
        except BadKey as error:
            where = "credentials.key of the configuration" if self._configured else f"The key file {self.path}"
            raise KeysError(f"{where} cannot be used: {error} `omniops credentials new-key` prints one.") from None

    def add(self) -> Keyring:
        """With a new key, which seals from now on, kept in the file before the others."""
        self._write([new_key(), *self._read()])
        return Keyring(self._read())

    def keep(self, ring: Keyring) -> Keyring:
        """With the newest key of `ring` only."""
        self._write([key for key in self._read() if Keyring([key]).newest == ring.newest])
        return Keyring(self._read())

    def _read(self) -> list[bytes]:
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
            if mode & 0o077:
                raise KeysError(f"The key file {self.path} can be read by others (mode {mode:04o}): chmod 600 it.")
            return read_keys(self.path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"The key file {self.path} cannot be read: {error}.") from None

    def _write(self, keys: list[bytes]) -> None:
        try:
            write_atomically(self.path, "".join(f"{key_text(key)}\n" for key in keys).encode())
        except OSError as error:
            raise KeysError(f"The key file {self.path} cannot be written: {os.strerror(error.errno or 0)}.") from None
