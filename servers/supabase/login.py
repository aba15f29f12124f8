"""Whether a login is weak enough. Row-level security binds nobody who may become a role that it does not bind."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from ..errors import ToolDenied

LEDGER = "omniops_tools.applied"

_LOOK = """
SELECT session_user::text AS login,
       (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = session_user) AS unbound,
       EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s) AS role_exists,
       coalesce((SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %(role)s), false) AS role_unbound,
       coalesce((SELECT pg_has_role(session_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = %(role)s), false)
           AS member,
       ARRAY(SELECT rolname::text FROM pg_roles WHERE (rolsuper OR rolbypassrls)
             AND rolname <> session_user AND pg_has_role(session_user, oid, 'MEMBER') ORDER BY 1) AS reaches,
       current_setting('server_version') AS version
"""


async def check_login(connection: AsyncConnection[DictRow], role: str) -> dict[str, Any]:
    """What the login is; the role that it takes on.

    Raises:
        ToolDenied: it is not bound by row-level security, or cannot take on the role.
    """
    found = await (await connection.execute(_LOOK.encode(), {"role": role})).fetchone()
    assert found is not None
    login, advice = found["login"], "docs/supabase.md has the SQL for a login that may do what is needed and no more."
    if not found["role_exists"]:
        raise ToolDenied(f"The tenant's database has no role {role!r}.", hint=advice)
    if found["role_unbound"]:
        raise ToolDenied(f"Row-level security does not bind the role {role!r}: name another one.", hint=advice)
    if found["unbound"]:
        raise ToolDenied(f"The login {login!r} goes around row-level security: connect as another one.", hint=advice)
    if found["reaches"]:
        stronger = f"{', '.join(found['reaches'])}, which row-level security does not bind"
        raise ToolDenied(f"The login {login!r} may become {stronger}.", hint=advice)
    if not found["member"]:
        raise ToolDenied(f"The login {login!r} may not become {role!r}: GRANT {role} TO {login}.", hint=advice)
    return dict(found)
