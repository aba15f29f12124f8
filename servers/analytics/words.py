"""The words that say what messages are about (`chat_message.intents`), and what they mean to a report.

Whatever is none of the words below is a *request*: an intent such as `bookflight`, or a tool that the agent called.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

#: What people say around their requests.
SOCIAL = ("openinggreeting", "closinggreeting", "confirmation", "rejection", "thankyou", "contentonly", "")
#: What the service is not there for.
OUT_OF_DOMAIN = "outofdomain"
#: How a turn of the agent ended.
ANSWERED, UNANSWERED = "answered", "unanswered"
#: The tool that gives a conversation to a person.
HANDED_OVER = "hand_over"
#: Tools that no customer asks for.
AROUND = ("verify_customer",)
NO_REQUEST = (*SOCIAL, OUT_OF_DOMAIN, ANSWERED, UNANSWERED, HANDED_OVER, *AROUND)

#: A conversation with a request, and one of these as its last word, counts as resolved: the customer confirmed, said
#: thanks or good-bye, or wanted nothing else ("rejection"); or the agent answered.
CLOSERS = ("confirmation", "rejection", "thankyou", "closinggreeting", ANSWERED)

#: Requests that are business: a resolved conversation with one of them counts as converted.
GOALS = ("order*", "book*", "startservice*", "upgradeservice*", "openaccount", "create_order", "checkout*")

Pattern = Annotated[
    str,
    Meta(
        description="an intent or tool; a * at its end: all that begin so", pattern=r"^[a-z0-9_.]+\*?$", max_length=80
    ),
]
Patterns = Annotated[list[Pattern], Meta(max_length=50)]

#: Among the words of a funnel's step: any request.
REQUEST = "request"


def like(patterns: Sequence[str]) -> list[str]:
    """For SQL's LIKE ANY."""
    return [re.sub(r"([\\%_])", r"\\\1", p.removesuffix("*")) + ("%" if p.endswith("*") else "") for p in patterns]
