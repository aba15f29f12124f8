"""A gateway in which one person is known in every table that can know one; and others, who are to be left alone."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from psycopg.types.json import Json

from gateway.db import Database
from gateway.gdpr.registry import TABLES
from gateway.runtime import Gateway
from gateway.types import Grant
from servers.context import Progress
from servers.gdpr.office import Exported

EMAIL, OTHER = "Bo.Person@mail.example", "kim@mail.example"
CUSTOMER, OTHERS = 4711, 815

#: Of a personal column, what is looked for. Ids and pseudonyms are not texts to be marked.
UNMARKED = {
    "session.customer",
    "store_customer.id",
    "store_customer.email",
    "store_order.customer_id",
    "store_order.email",
    "store_order_item.sku",
    "store_order_item.name",
    "handover.customer",
    "chat_message.customer",
    "gdpr_export.subject",
    "gdpr_erasure.subject",
    "gdpr_erasure.emails",
    "gdpr_erasure.customers",
    "gdpr_erasure.reason",
    "gdpr_erasure.report",
    "transcript_line.line",
}


def mark(table: str, column: str, whose: str) -> str:
    return f"mark {table}.{column} of {whose}"


@dataclass
class Filling:
    """Rows of one session. `named`: every text of them names this e-mail, if any."""

    database: Database
    tenant: str
    session: str
    whose: str
    customer: int | None = None
    named: str = ""

    async def rows(self) -> None:
        """One in every table that can hold something of a person."""
        await self._update("session", "id", "title")
        await self._put("cell", id="c9", index=9, status="ok", started="2025-01-01", code=self.text("cell", "code"))
        call = await self._call()
        await self._put("turn", index=1, mode="cells", reason="answered", usage=Json({}), **_TIMES, **self.json("turn"))
        if self.customer or self.named:
            texts = {"summary": self.text("handover", "summary"), "idempotency_key": self.session}
            await self._put("handover", tenant=self.tenant, customer=self.customer, **texts)
        approval = f"approval-{self.session}"
        texts = {each: self.text("approval", each) for each in ("title", "note", "outcome")}
        await self._put(
            "approval", id=approval, tenant=self.tenant, principal="p", role="agent", cell="c9", state="approved",
            created="2025-01-01", expires="2025-01-01", held_until="2025-01-01", **texts,
        )  # fmt: skip
        await self.database.execute(
            "INSERT INTO approval_call (approval, position, call, args_hash, reason, view, open)"
            " VALUES (%s, 1, %s, '', %s, %s, false)",
            (approval, call, self.text("approval_call", "reason"), Json(self.view())),
        )
        if self.customer:
            texts = {each: self.text("conversation", each) for each in ("key", "scope", "said")}
            await self._put("conversation", tenant=self.tenant, **texts)
        await self._put("session_key", principal="p", key=self.text("session_key", "key"), digest="")
        await self._put("jupyter_kernel", name="python3")
        texts = {each: self.text("jupyter_session", each) for each in ("path", "name")}
        await self.database.execute(
            "INSERT INTO jupyter_session (id, tenant, kernel, path, name, type) VALUES (%s, %s, %s, %s, %s, '')",
            (self.session, self.tenant, self.session, texts["path"], texts["name"]),
        )
        await self._put_plain(
            "chat_message", tenant=self.tenant, conversation=self.session, seq=1, started="2025-01-01",
            at="2025-01-01", role="customer", customer=self.customer, text=self.text("chat_message", "text"),
        )  # fmt: skip
        if self.customer or self.named:
            await self._store()
        texts = {each: self.text("work_run", each) for each in ("note", "error")}
        await self._put("work_run", tenant=self.tenant, workload="w", tool="t", call="", state="failed", **texts)
        if self.named:
            texts = {each: self.text("page", each) for each in ("title", "description")}
            await self._put_plain(
                "page", tenant=self.tenant, url="u", site="s", language="", links=[], etag="", last_modified="",
                content_hash="", recipe="", truncated=False, **texts,
            )  # fmt: skip
            texts = {each: self.text("page_chunk", each) for each in ("text", "heading")}
            await self._put_plain(
                "page_chunk", tenant=self.tenant, url="u", position=1, tokens=1, words="", model="",
                embedding=str([0] * 384), **texts,
            )  # fmt: skip
            await self._put_plain(
                "work_checkpoint", tenant=self.tenant, name="w",
                state=Json({"at": self.text("work_checkpoint", "state")}),
            )  # fmt: skip
            await self._put_plain(
                "observed_shape", tenant=self.tenant, tool=self.session, digest="",
                shape=Json({self.text("observed_shape", "shape"): "str"}),
            )  # fmt: skip
            await self._put_plain(
                "administration", principal="p", tenant=self.tenant, action="x",
                subject=self.text("administration", "subject"),
            )  # fmt: skip

    async def _store(self) -> None:
        """The copy of the store: an account and an order; of the staff's one with another customer."""
        email = f"{self.whose}@mail.example" if self.customer else OTHER
        number = self.customer or len(self.whose)
        texts = {each: mark("store_customer", each, self.whose) for each in ("first_name", "last_name")}
        data = Json({"note": self.text("store_customer", "data")})
        await self._put_plain(
            "store_customer", tenant=self.tenant, id=number, content_hash="", data=data, email=email, **texts
        )
        data = Json([{"note": self.text("store_order", "data")}, *([{"by": "of nobody"}] if self.named else [])])
        await self._put_plain(
            "store_order", tenant=self.tenant, id=number, content_hash="", data=data, number=str(number),
            customer_id=number, email=email, status="completed", currency="EUR", total=1,
        )  # fmt: skip
        await self._put_plain(
            "store_order_item", tenant=self.tenant, order_id=number, line=1, product_id=1, variation_id=0, sku="s",
            name=f"goods of order {number}", quantity=1, total=1,
        )  # fmt: skip

    async def transcript_title(self) -> None:
        await self._update("transcript", "session", "title")

    def text(self, table: str, column: str) -> str:
        return f"{mark(table, column, self.whose)} {self.named}".strip()

    def json(self, table: str) -> dict[str, Json]:
        """Each personal column of JSON, as a list with somebody else in it."""
        columns = [each for each in TABLES[table].names("person") if each in _JSON.get(table, ())]
        found = {}
        for each in columns:
            own: list[dict[str, str]] = [{"text": self.text(table, each), "email": self.named}]
            found[each] = Json([*own, *([{"text": "of nobody", "email": OTHER}] if self.named else [])])
        return found

    def view(self) -> dict[str, str]:
        return {"tool": "t", "effect": "write", "does": "x", "target": self.text("approval_call", "view")}

    async def _call(self) -> int:
        rows = [{"email": self.named, "text": self.text("call", "result_table")}]
        rows += [{"email": OTHER, "text": "of nobody"}] if self.named else []
        table = pa.Table.from_pylist(rows)
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        args = self.json("call")
        made = await self.database.fetch(
            "INSERT INTO call (session, cell, tool, args, args_hash, occurrence, effect, idempotency_key, state,"
            " result, error, result_table, tenant, principal)"
            " VALUES (%s, 'c9', 't.t', %s, '', 0, 'read', %s, 'applied', %s, %s, %s, %s, 'p') RETURNING id",
            (
                self.session, args["args"], f"key-{self.session}", json.dumps(args["result"].obj), args["error"],
                stream.getvalue(), self.tenant,
            ),
        )  # fmt: skip
        return int(made[0]["id"])

    async def _put(self, table: str, **values: object) -> None:
        await self._put_plain(table, session=self.session, **values)

    async def _put_plain(self, table: str, **values: object) -> None:
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join(["%s"] * len(values))
        await self.database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))

    async def _update(self, table: str, key: str, column: str) -> None:
        sql = f"UPDATE {table} SET {column} = %s WHERE {key} = %s"
        await self.database.execute(sql, (self.text(table, column), self.session))


_TIMES = {"started": "2025-01-01", "ended": "2025-01-01"}
_JSON = {"turn": ("messages",), "call": ("args", "result", "error")}


async def export(gateway: Gateway, grant: Grant, email: str = EMAIL, customer: int = 0) -> Exported:
    """What it comes to."""
    *_, last = [part async for part in gateway.office.for_call(grant, "").export(email, customer)]
    assert not isinstance(last, Progress)
    return last


def opened(data_dir: Path, tenant: str, export: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(data_dir / "exports" / tenant / f"{export}.zip")


def contents(file: zipfile.ZipFile) -> dict[str, bytes]:
    with file:
        return {name: file.read(name) for name in file.namelist()}


async def everything(gateway: Gateway) -> dict[str, str]:
    """All text of the database by table, and of the files of transcripts."""
    found: dict[str, str] = {}
    for name in TABLES:
        rows = await gateway.database.fetch(f"SELECT t.*::text AS row FROM {name} AS t")
        found[name] = "\n".join(str(row["row"]) for row in rows)
    lines = await gateway.database.fetch("SELECT convert_from(line, 'UTF8') AS line FROM transcript_line")
    found["transcript_line"] = "\n".join(row["line"] for row in lines)
    tables = await gateway.database.fetch("SELECT encode(result_table, 'escape') AS t FROM call")
    found["call"] += "\n".join(str(row["t"]) for row in tables)
    files = [path for path in gateway.data_dir.path.rglob("transcripts/*/*") if path.is_file()]
    found["files"] = "\n".join(path.read_text() for path in files)
    return found


def json_lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]
