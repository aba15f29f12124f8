"""Who is meant: from an e-mail or a customer's id to all ids, e-mails and sessions of that person at one tenant."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from typing import Any

from gateway.db import Database
from gateway.gdpr.naming import Names

_SESSIONS = "SELECT id FROM session WHERE tenant = %s AND customer = ANY(%s) ORDER BY created, id"
_LONGEST = 254
#: As the copy of the store knows them.
_ACCOUNTS = """
    SELECT id AS customer, lower(email) AS email FROM store_customer
    WHERE tenant = %(tenant)s AND (id = ANY(%(customers)s) OR lower(email) = ANY(%(emails)s))
"""
#: A column of ids of customers says so by its name.
_TABLES = """
    SELECT id, result_table FROM call
    WHERE tenant = %s AND result_table IS NOT NULL AND position('customer'::bytea IN result_table) > 0
"""


@dataclass(frozen=True)
class Subject:
    """One person at one tenant."""

    tenant: str
    #: In lower case.
    emails: tuple[str, ...]
    customers: tuple[int, ...]
    #: Held with the person: their verified customer is this one.
    sessions: tuple[str, ...] = ()
    #: Keyed digests, by which it is known later who was given or erased what.
    pseudonyms: tuple[str, ...] = ()
    #: Calls of which the result, an Arrow table, has rows about one of `customers`.
    tables: tuple[int, ...] = ()

    @property
    def names(self) -> Names:
        return Names(emails=self.emails, customers=self.customers)

    @property
    def parameters(self) -> dict[str, Any]:
        """For the registry's conditions."""
        return {
            "tenant": self.tenant,
            "customers": list(self.customers),
            "emails": list(self.emails),
            "sessions": list(self.sessions),
            "pseudonyms": list(self.pseudonyms),
            **self.names.parameters,
            "tables": list(self.tables),
        }


def asked(tenant: str, email: str, customer: int) -> Subject:
    """Raises ValueError: neither is given, or it is no e-mail address."""
    email = email.strip().lower()
    if not email and not customer:
        raise ValueError("Say who is meant: email, customer_id, or both.")
    at = email.count("@") == 1 and all(email.split("@"))
    if email and (not at or len(email) > _LONGEST or any(each.isspace() or ord(each) < 32 for each in email)):
        raise ValueError(f"{email[:80]!r} is no e-mail address.")
    return Subject(tenant, (email,) if email else (), (customer,) if customer else ())


async def resolve(database: Database, key: bytes, subject: Subject) -> Subject:
    """With what the copy of the store knows, the sessions that were held with the person, and the pseudonyms."""
    known = await database.fetch(_ACCOUNTS, subject.parameters)
    subject = replace(
        subject,
        emails=tuple(dict.fromkeys([*subject.emails, *(row["email"] for row in known if "@" in row["email"])])),
        customers=tuple(dict.fromkeys([*subject.customers, *(row["customer"] for row in known)])),
    )
    rows = await database.fetch(_SESSIONS, (subject.tenant, list(subject.customers)))
    return replace(
        subject,
        sessions=tuple(row["id"] for row in rows),
        pseudonyms=pseudonyms(key, subject),
        tables=await _tables(database, subject),
    )


async def _tables(database: Database, subject: Subject) -> tuple[int, ...]:
    if not subject.customers:
        return ()
    names, found = subject.names, []
    async with database.connection() as connection, connection.cursor() as cursor:
        async for row in cursor.stream(_TABLES.encode(), (subject.tenant,)):
            if any(names.rows(bytes(row["result_table"]))):
                found.append(row["id"])
    return tuple(found)


def pseudonyms(key: bytes, subject: Subject) -> tuple[str, ...]:
    """One for each e-mail and id."""
    texts = (*subject.emails, *(f"customer {each}" for each in subject.customers))
    return tuple(hmac.digest(key, f"{subject.tenant}\n{text}".encode(), "sha256").hex()[:32] for text in texts)
