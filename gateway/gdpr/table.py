"""What the registry says of one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Holds: TypeAlias = Literal[
    "person",  # about the person, or may be: exported, and erased or kept with a reason
    "context",  # exported beside it: when, which tool; erased with the row alone
    "staff",  # of people who work here or run the gateway: not theirs who asks
    "internal",  # digests, numbers of rows, states of gateways: nothing of anybody
    "secret",
]


@dataclass(frozen=True)
class Table:
    """One table. `tenant` and `own` are SQL conditions on a row `t`."""

    columns: Mapping[str, Holds]
    #: Whose row it is; "" where the table is nobody's.
    tenant: str = ""
    #: True of rows that are the person's as a whole; "" where there are none.
    own: str = ""
    #: Columns of text or JSON in which the person may be named in rows that are another's.
    mentions: tuple[str, ...] = ()
    #: The same for Arrow tables.
    arrow: tuple[str, ...] = ()
    #: What becomes of rows: removed, or these columns set to these texts (None: NULL), or kept as they are.
    erase: Literal["delete", "blank", "keep"] = "keep"
    blank: Mapping[str, str | None] = field(default_factory=dict)
    #: The same for rows of others that name the person; None: as the person's own.
    blank_mention: Mapping[str, str | None] | None = None
    #: Condition under which a row that names the person may be changed now.
    free: str = "true"
    #: Why rows, or the rest of them, stay; what removes the contents where it is not a statement on the table.
    why: str = ""

    def names(self, *holds: Holds) -> tuple[str, ...]:
        """The columns that hold this."""
        return tuple(name for name, held in self.columns.items() if held in holds)

    @property
    def personal(self) -> bool:
        return "person" in self.columns.values()
