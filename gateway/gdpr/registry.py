"""What every table and column of the database holds of people, and what export and erasure do with it. Data alone.

A new table or column is entered here: `tests/gateway/test_gdpr_registry.py` fails until it is, and until an export has
what it holds of a person and an erasure has removed it.

In conditions, `t` is the table's row, and there are `%(tenant)s`, `%(customers)s` (bigint[]), `%(emails)s` (text[],
lower case), `%(sessions)s` (text[]: those that were held with the person) and `%(pseudonyms)s` (text[]).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.gdpr.table import Holds
from gateway.gdpr.table import Table as Table


def _all(holds: Holds, names: str) -> dict[str, Holds]:
    return dict.fromkeys(names.split(), holds)


def _nobodys(holds: Holds, names: str, why: str) -> Table:
    return Table(_all(holds, names), why=why)


_BY_TENANT = "t.tenant = %(tenant)s"
_IN_SESSION = "t.session IN (SELECT id FROM session WHERE session.tenant = %(tenant)s)"
_OWN_SESSION = "t.session = ANY(%(sessions)s)"
_ENDED = "t.session IN (SELECT id FROM session WHERE session.state = 'ended')"

_MADE_HERE = "That there was a conversation, when, and what calls did stays for accounts, without what was said."
_OWN_ORDER = "(t.customer_id = ANY(%(customers)s) OR lower(t.email) = ANY(%(emails)s))"
_CRAWL = "How far a crawl of a public site is."
_GOODS = "What the shop sells."
_GATEWAY = "Of gateways, not of people."

TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "session": Table(
            _all("person", "customer title")
            | _all("context", "id role state created ended")
            | _all("staff", "principal")
            | _all("internal", "tenant profile reason gateway fence first_cell"),
            tenant=_BY_TENANT,
            own="t.id = ANY(%(sessions)s)",
            mentions=("title",),
            erase="blank",
            blank={"customer": None, "title": ""},
            blank_mention={"title": ""},
            free="t.state = 'ended'",
            why=_MADE_HERE,
        ),
        "cell": Table(
            _all("person", "code")
            | _all("context", "session id index status started ended")
            | _all("internal", "msg_id deadline stopped trace"),
            tenant=_IN_SESSION,
            own=_OWN_SESSION,
            mentions=("code",),
            erase="blank",
            blank={"code": ""},
            free=_ENDED,
            why=_MADE_HERE,
        ),
        "call": Table(
            _all("person", "args result error result_table")
            | _all("context", "session cell id tool effect state started ended")
            | _all("staff", "principal reverted_by")
            | _all(
                "internal",
                "args_hash occurrence idempotency_key result_bytes tenant approval reverted reverting_until "
                "result_rows batches cost",
            ),
            tenant=_BY_TENANT,
            own=_OWN_SESSION,
            mentions=("args", "result", "error"),
            arrow=("result_table",),
            erase="blank",
            blank={"args": "{}", "result": None, "error": None, "result_table": None},
            free=_ENDED,
            why="That a call was made, when, and to which effect is the journal, which accounts and audits rest on.",
        ),
        "turn": Table(
            _all("person", "messages")
            | _all("context", "session index mode reason started ended")
            | _all("internal", "usage"),
            tenant=_IN_SESSION,
            own=_OWN_SESSION,
            mentions=("messages",),
            erase="blank",
            blank={"messages": "[]"},
            free=_ENDED,
            why=_MADE_HERE,
        ),
        "chat_message": Table(
            _all("person", "customer text")
            | _all("context", "conversation seq started at role intents")
            | _all("internal", "tenant dated"),
            tenant=_BY_TENANT,
            own="(t.customer = ANY(%(customers)s) OR t.conversation = ANY(%(sessions)s))",
            mentions=("text",),
            erase="blank",
            blank={"customer": None, "text": ""},
            blank_mention={"text": ""},
            why="That something was said, when, and what it was about stays for reports, without the words.",
        ),
        "request": Table(
            _all("internal", "session cell id call replayed"), tenant=_IN_SESSION, why="Numbers of calls."
        ),
        "handover": Table(
            _all("person", "customer summary")
            | _all("context", "id session created taken")
            | _all("staff", "taken_by")
            | _all("internal", "tenant idempotency_key"),
            tenant=_BY_TENANT,
            own="(t.customer = ANY(%(customers)s) OR t.session = ANY(%(sessions)s))",
            mentions=("summary",),
            erase="delete",
        ),
        "approval": Table(
            _all("person", "title note outcome")
            | _all("context", "id session cell state created expires decided")
            | _all("staff", "principal decided_by")
            | _all(
                "internal",
                "tenant role batch held_until answered claimed_by claimed_until resumed told",
            ),
            tenant=_BY_TENANT,
            own=_OWN_SESSION,
            mentions=("title", "note", "outcome"),
            erase="blank",
            blank={"title": "", "note": "", "outcome": ""},
            free=_ENDED,
            why="That something was asked, who decided it and when stays: it says at whose word money moved.",
        ),
        "approval_call": Table(
            _all("person", "view reason")
            | _all("context", "approval position approved")
            | _all("internal", "call args_hash open"),
            tenant="t.approval IN (SELECT id FROM approval WHERE approval.tenant = %(tenant)s)",
            own="t.approval IN (SELECT id FROM approval WHERE approval.session = ANY(%(sessions)s))",
            mentions=("view", "reason"),
            erase="blank",
            blank={"view": '{"tool":"erased","effect":"read","does":"What was shown was erased."}', "reason": ""},
            free="t.approval IN (SELECT approval.id FROM approval JOIN session ON session.id = approval.session"
            " WHERE session.state = 'ended')",
            why="Which calls were decided about stays, without what was shown.",
        ),
        "conversation": Table(
            _all("person", "key scope said") | _all("context", "session changed") | _all("internal", "tenant"),
            tenant=_BY_TENANT,
            own=_OWN_SESSION,
            erase="delete",
        ),
        "session_key": Table(
            _all("person", "key")
            | _all("context", "session")
            | _all("staff", "principal")
            | _all("internal", "digest"),
            tenant=_IN_SESSION,
            own=_OWN_SESSION,
            mentions=("key",),
            erase="delete",
        ),
        "jupyter_kernel": Table(_all("internal", "session name"), tenant=_IN_SESSION, why="Kinds of kernels."),
        "jupyter_session": Table(
            _all("person", "path name") | _all("context", "id kernel type created") | _all("internal", "tenant"),
            tenant=_BY_TENANT,
            own="t.kernel = ANY(%(sessions)s)",
            mentions=("path", "name"),
            erase="delete",
            free="t.kernel IN (SELECT id FROM session WHERE session.state = 'ended')",
        ),
        "transcript": Table(
            _all("person", "title")
            | _all("context", "session role state created changed cells messages tools errors erased")
            | _all("internal", "tenant seq head bytes dollars"),
            tenant=_BY_TENANT,
            own=_OWN_SESSION,
            mentions=("title",),
            erase="blank",
            blank={"title": ""},
            free=_ENDED,
            why=_MADE_HERE,
        ),
        "transcript_line": Table(
            _all("person", "line") | _all("internal", "session seq hash"),
            tenant=_IN_SESSION,
            why="The record's lines as its file has them: exported and erased as `transcripts`; hashes stay.",
        ),
        "observed_shape": Table(
            _all("person", "shape") | _all("context", "tool changed") | _all("internal", "tenant digest"),
            tenant=_BY_TENANT,
            mentions=("shape",),
            erase="delete",
            why="Types of results and names of keys: a person only where a server makes keys of e-mail addresses.",
        ),
        "schedule": Table(_all("internal", "tenant name rule since"), why="Times of cron."),
        "schedule_run": Table(_all("internal", "tenant name due state gateway session started ended"), why="Likewise."),
        "work_run": Table(
            _all("person", "note error")
            | _all("context", "id workload tool session state started ended")
            | _all(
                "internal",
                "tenant call done total unit rows bytes calls retries peak_mb dollars direct_bytes report_bytes seen",
            ),
            tenant=_BY_TENANT,
            own=_OWN_SESSION,
            mentions=("note", "error"),
            erase="blank",
            blank={"note": "", "error": ""},
            free="t.state <> 'running'",
            why="What runs of long work took, without what they said.",
        ),
        "work_checkpoint": Table(
            _all("person", "state") | _all("context", "name saved") | _all("internal", "tenant"),
            tenant=_BY_TENANT,
            mentions=("state",),
            erase="delete",
            why="Where long work goes on; without it, it begins anew.",
        ),
        "administration": Table(
            _all("person", "subject")
            | _all("context", "id at action outcome")
            | _all("staff", "principal role source")
            | _all("internal", "tenant"),
            tenant=_BY_TENANT,
            mentions=("subject",),
            why="The audit is only added to (GDPR article 17(3)(b) and (e)); its entries name sessions and pseudonyms.",
        ),
        "gdpr_export": Table(
            _all("person", "subject")
            | _all("context", "id created expires revoked removed uses")
            | _all("staff", "principal")
            | _all("internal", "tenant session gateway state bytes sha256"),
            tenant=_BY_TENANT,
            own="t.subject = ANY(%(pseudonyms)s)",
            why="That the person was given their data is proof (GDPR article 5(2)); the file is removed, the name is a "
            "pseudonym.",
        ),
        "gdpr_erasure": Table(
            _all("person", "subject emails customers reason report")
            | _all("context", "id state created done")
            | _all("staff", "principal")
            | _all("internal", "tenant session claimed_by claimed_until"),
            tenant=_BY_TENANT,
            own="t.subject = ANY(%(pseudonyms)s)",
            why="That the person's data was erased is proof (GDPR article 5(2)); e-mails and ids go when it is done.",
        ),
        "store_customer": Table(
            _all("person", "id data email first_name last_name")
            | _all("context", "created_at synced_at")
            | _all("internal", "tenant content_hash"),
            tenant=_BY_TENANT,
            own="(t.id = ANY(%(customers)s) OR lower(t.email) = ANY(%(emails)s))",
            mentions=("data",),
            erase="delete",
            blank_mention={"data": "{}"},
            why="A copy: while the store has the account, the next sync brings it again. Erase it there first.",
        ),
        "store_order": Table(
            _all("person", "data customer_id email")
            | _all("context", "id number status currency total created_at")
            | _all("internal", "tenant content_hash modified_at synced_at"),
            tenant=_BY_TENANT,
            own=_OWN_ORDER,
            mentions=("data",),
            erase="blank",
            blank={"data": "{}", "customer_id": "0", "email": ""},
            blank_mention={"data": "{}"},
            why="What was sold, when, for how much stays for accounts, which the law wants, without to whom.",
        ),
        "store_order_item": Table(
            _all("person", "sku name")
            | _all("context", "order_id line quantity total")
            | _all("internal", "tenant product_id variation_id"),
            tenant=_BY_TENANT,
            own=f"t.order_id IN (SELECT t.id FROM store_order AS t WHERE t.tenant = %(tenant)s AND {_OWN_ORDER})",
            why="What was sold stays for accounts; whose order it was is gone from the order.",
        ),
        "store_product": _nobodys(
            "internal",
            "tenant id content_hash data name sku type status price stock_status stock_quantity modified_at synced_at",
            _GOODS,
        ),
        "store_variation": _nobodys(
            "internal",
            "tenant id parent_id content_hash data sku price stock_status stock_quantity modified_at synced_at",
            _GOODS,
        ),
        "store_sync": _nobodys("internal", "tenant kind version state", "How far a sync is."),
        "store_gone": _nobodys("internal", "tenant kind id", "Numbers of what a store has no more, during a sync."),
        "page_chunk": Table(
            _all("person", "text heading")
            | _all("context", "url position")
            | _all("internal", "tenant tokens words embedding model"),
            tenant=_BY_TENANT,
            mentions=("text", "heading"),
            erase="delete",
            why="A copy of a public page: while it is there, the next crawl brings it again.",
        ),
        "page": Table(
            _all("person", "title description")
            | _all("context", "url site fetched")
            | _all(
                "internal",
                "tenant language product sku price currency links etag last_modified content_hash recipe truncated",
            ),
            tenant=_BY_TENANT,
            mentions=("title", "description"),
            erase="blank",
            blank={"title": "", "description": ""},
            why="That there is a page; what it says is in page_chunk.",
        ),
        "page_crawl": _nobodys("internal", "tenant site run started finished options counts", _CRAWL),
        "page_frontier": _nobodys("internal", "tenant site url depth seq done", _CRAWL),
        "product": _nobodys(
            "internal",
            "tenant id name slug permalink type categories description attributes variants price_from price_to "
            "in_stock words embedding content_hash loaded",
            _GOODS,
        ),
        "credential": _nobodys("secret", "tenant name format key_id sealed changed changed_by", "The tenant's own."),
        "api_key": _nobodys(
            "staff", "id tenant role label created created_by expires revoked last_used", "Of people who work here."
        ),
        "api_key_secret": _nobodys("secret", "key digest created expires", "Digests of keys."),
        "foreign_tool": _nobodys(
            "internal",
            "owner server name definition digest offered offered_digest listed seen changed",
            "What servers say of their tools.",
        ),
        "foreign_decision": _nobodys(
            "staff",
            "id at principal tenant owner server name action digest effect roles idempotent",
            "Who decided about foreign tools.",
        ),
        "foreign_revision": _nobodys("internal", "revision", "A number."),
        "gateway": _nobodys("internal", "id epoch url alive_until started", _GATEWAY),
        "gateway_secret": _nobodys("secret", "one secret", _GATEWAY),
        "migration": _nobodys("internal", "name sha256 applied", _GATEWAY),
    }
)


def gaps(found: Mapping[str, frozenset[str]]) -> list[str]:
    """What is missing here, or here alone, of a database with these columns by table; what to do about it."""
    told = []
    for table in sorted(found.keys() | TABLES.keys()):
        if table not in TABLES:
            told.append(f"Table {table} is not in gateway/gdpr/registry.py: enter what it holds of people.")
            continue
        known = TABLES[table].columns.keys()
        told += [
            f"Column {table}.{name} is not in gateway/gdpr/registry.py: enter what it holds of people."
            for name in sorted(found.get(table, frozenset()) - known)
        ]
        told += [
            f"gateway/gdpr/registry.py has {table}.{name}, which the database has not."
            for name in sorted(known - found.get(table, frozenset()))
        ]
    return told
