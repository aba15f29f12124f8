"""Who we are to a project's API: the publishable key, and the session's claims, signed for a minute."""

from __future__ import annotations

import time
from collections.abc import Mapping

import jwt

from ..errors import ToolDenied

#: Long enough for one call and its repetitions.
LIFE_S = 300


def signed(claims: Mapping[str, str], secret: str) -> str:
    """A JWT as Supabase's legacy secret signs them (HS256)."""
    now = int(time.time())
    return jwt.encode({"aud": "authenticated", **claims, "iat": now, "exp": now + LIFE_S}, secret, algorithm="HS256")


def check_key(key: str) -> None:
    """
    Raises:
        ToolDenied: the key goes around row-level security.
    """
    if key.startswith("sb_secret_") or _role_of(key) not in ("", "anon"):
        raise ToolDenied(
            "The project's key is a secret one, which goes around row-level security.",
            hint="Configure the publishable (anon) key.",
        )


def _role_of(key: str) -> str:
    """The role that a key of the older kind names."""
    try:
        return str(jwt.decode(key, options={"verify_signature": False}).get("role", ""))
    except jwt.PyJWTError:
        return ""
