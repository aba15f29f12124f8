"""The registry of what tables hold of people: complete, or a test fails; and names that are found and not mistaken."""

from __future__ import annotations

import psycopg
import pytest
from own_database import own_database

from gateway.gdpr.naming import Names, mention_sql
from gateway.gdpr.registry import TABLES, gaps

COLUMNS = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"


def columns(connection: psycopg.Connection[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(COLUMNS):
        found.setdefault(table, set()).add(column)
    return {table: frozenset(names) for table, names in found.items()}


def test_every_table_and_column_says_what_it_holds_of_people(postgres: str) -> None:
    with own_database(postgres) as url, psycopg.connect(url, autocommit=True) as connection:
        assert gaps(columns(connection)) == []
        connection.execute("CREATE TABLE newsletter (email text)")
        connection.execute("ALTER TABLE session ADD COLUMN nickname text")
        connection.execute("ALTER TABLE handover DROP COLUMN summary")
        told = gaps(columns(connection))
    assert [each.split()[1] for each in told] == ["has", "newsletter", "session.nickname"]


def test_what_it_says_can_be_done_on_the_database(postgres: str) -> None:
    """Conditions and what columns are emptied to are SQL that holds, also of tables that no other test fills."""
    values = {"tenant": "t", "customers": [1], "emails": ["a@b.ch"], "sessions": ["s"], "pseudonyms": ["p"]}
    values |= Names(emails=("a@b.ch",), customers=(1,)).parameters
    with own_database(postgres) as url, psycopg.connect(url) as connection:
        for name, table in TABLES.items():
            assert set(table.mentions) | set(table.arrow) | set(table.blank) <= set(table.names("person"))
            assert table.why or (table.personal and table.erase == "delete"), name
            for condition in filter(None, (table.tenant, table.own, table.free)):
                mention = mention_sql(table.mentions, table.arrow)
                connection.execute(f"SELECT FROM {name} AS t WHERE {condition} AND {mention}".encode(), values)


def test_what_holds_something_of_people_is_erased_or_says_why_not() -> None:
    for name, table in TABLES.items():
        left = set(table.names("person")) - set(table.blank) - {"customer"}
        assert not table.personal or table.tenant, name
        if table.erase == "blank":
            assert not left, name


NAMES = Names(emails=("bo+x@mail.ch", "müller@mail.ch"), customers=(42,))
NAMED = [
    "write to bo+x@mail.ch.",
    "BO+X@MAIL.CH",
    '{"email":"bo+x@mail.ch"}',
    '{"customer_id": 42}',
    "get_customer(customer_id=42)",
    '{\\"customer_id\\": 42}',
    "müller@mail.ch",
    '"m\\u00fcller@mail.ch"',
]
OTHERS = [
    "abo+x@mail.ch",
    "bo+x@mail.ch.example.com",
    "bo+x@mail.chat",
    "x@mail.ch",
    "boxx@mail.ch",
    "customer_id = 421",
    "customer_id = 42.5",
    "42",
    "",
]


@pytest.mark.parametrize(("texts", "named"), [(NAMED, True), (OTHERS, False)], ids=["named", "others"])
def test_a_name_is_found_and_no_other_is_taken_for_it(postgres: str, texts: list[str], named: bool) -> None:
    """By Python in text and bytes, and by Postgres, alike."""
    with psycopg.connect(postgres) as connection:
        for text in texts:
            sql = f"SELECT {mention_sql(('text',))} FROM (SELECT %(text)s::text AS text) AS t"
            row = connection.execute(sql.encode(), NAMES.parameters | {"text": text}).fetchone()
            assert (NAMES.in_text(text), NAMES.in_bytes(text.encode()), row) == (named, named, (named,)), text


def test_of_what_is_anothers_only_the_part_is_given_out_that_names_the_person() -> None:
    other = {"email": "kim@mail.ch", "phone": "1"}
    bo = {"email": "bo+x@mail.ch", "phone": "2"}
    assert NAMES.cut([other, bo]) == [bo]
    assert NAMES.cut({"found": [other, bo], "by": other, "count": 2}) == {"found": [bo]}
    assert NAMES.cut({"order": 7, "billing": bo}) == {"order": 7, "billing": bo}
    assert NAMES.cut({"order": 7, "of": bo, "by": other}) == {"of": bo}
    assert NAMES.cut({"customer_id": 42, "items": [{"sku": "a"}]}) == {"customer_id": 42, "items": [{"sku": "a"}]}
    assert NAMES.cut("kim@mail.ch\nbo+x@mail.ch\n") == "bo+x@mail.ch"
    assert NAMES.cut([other]) is None
    assert NAMES.cut_json('[{"email":"kim@mail.ch"},{"email":"bo+x@mail.ch"}]') == [{"email": "bo+x@mail.ch"}]
    assert NAMES.cut_json("[not JSON bo+x@mail.ch") == "[not JSON bo+x@mail.ch"
