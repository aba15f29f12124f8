"""The reports' figures once more, by pandas and plain Python, from the same files; nothing is shared."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

SMALL_TALK = {"openinggreeting", "closinggreeting", "confirmation", "rejection", "thankyou", "contentonly"}
ENDS = {"confirmation", "rejection", "thankyou", "closinggreeting", "answered"}
NO_REQUEST = SMALL_TALK | {"outofdomain", "answered", "unanswered", "hand_over"}
GOALS = ("order", "book", "startservice", "upgradeservice", "checkout")


def conversations(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per conversation of a frame with the columns conversation, seq, role, words (a list), text."""
    rows = []
    for name, group in frame.sort_values(["conversation", "seq"], kind="stable").groupby("conversation"):
        said = [word for words in group["words"] for word in words]
        path: list[str] = []
        for word in said:
            if word not in NO_REQUEST and (not path or path[-1] != word):
                path.append(word)
        handed = "hand_over" in said
        resolved = bool(path) and not handed and bool(said) and said[-1] in ENDS
        rows.append(
            {
                "conversation": name,
                "messages": len(group),
                "asked": int((group["role"] == "customer").sum()),
                "said": said,
                "path": path,
                "last": said[-1] if said else "",
                "request": bool(path),
                "handed": handed,
                "resolved": resolved,
                "goal": any(w.startswith(GOALS) or w in ("openaccount", "create_order") for w in path),
            }
        )
    return pd.DataFrame(rows)


def journey(frame: pd.DataFrame) -> dict[str, Any]:
    found = conversations(frame)
    resolved = found[found["resolved"]]
    intents: Counter[str] = Counter()
    good: Counter[str] = Counter()
    for path, well in zip(found["path"], found["resolved"], strict=True):
        intents.update(set(path))
        good.update(set(path) if well else ())
    paths = Counter(
        " > ".join([*row.path, "handed over" if row.handed else "resolved" if row.resolved else "left"])
        for row in found.itertuples()
        if row.request
    )
    left = found[found["request"] & ~found["resolved"] & ~found["handed"]]
    return {
        "conversations": len(found),
        "messages": len(frame),
        "with_request": int(found["request"].sum()),
        "resolved": len(resolved),
        "handed_over": int(found["handed"].sum()),
        "converted": int((found["resolved"] & found["goal"]).sum()),
        "messages_per_conversation": {
            "mean": round(float(found["messages"].mean()), 2),
            "median": float(found["messages"].quantile(0.5)),
            "p90": float(found["messages"].quantile(0.9)),
            "most": float(found["messages"].max()),
        },
        "turns_to_resolution": {
            "mean": round(float(resolved["asked"].mean()), 2),
            "median": float(resolved["asked"].quantile(0.5)),
            "p90": float(resolved["asked"].quantile(0.9)),
            "most": float(resolved["asked"].max()),
        },
        "requests": {name: (n, good[name]) for name, n in intents.items()},
        "paths": dict(paths),
        "left_after": dict(Counter(left["last"])),
    }


def funnel(frame: pd.DataFrame, steps: list[set[str] | None]) -> list[int]:
    """How many conversations began, and reached each step; None is any request."""
    reached = [0] * (len(steps) + 1)
    for said in conversations(frame)["said"]:
        reached[0] += 1
        at, far = -1, 0
        for step in steps:
            fits = [
                i
                for i, word in enumerate(said)
                if (word not in NO_REQUEST if step is None else word in step)
                and (i > at or (i == at and word == "answered"))
            ]
            if not fits:
                break
            at, far = fits[0], far + 1
            reached[far] += 1
    return reached


def open_questions(frame: pd.DataFrame) -> Counter[str]:
    """How many questions have no good answer, by why."""
    why: Counter[str] = Counter()
    found = conversations(frame).set_index("conversation")
    for name, group in frame.sort_values(["conversation", "seq"]).groupby("conversation"):
        row = found.loc[name]
        asked = None
        last_request = False
        for message in group.itertuples():
            words = set(message.words)
            if message.role == "customer":
                asked = message
                why["out of domain"] += "outofdomain" in words
                last_request |= bool(words - NO_REQUEST) and "outofdomain" not in words
            elif asked is not None:
                if "hand_over" in words:
                    why["handed over"] += 1
                elif "unanswered" in words:
                    why["unanswered"] += 1
        left = row["request"] and not row["resolved"] and not row["handed"] and row["last"] != "unanswered"
        why["left"] += bool(left and last_request)
    return why


NO_GOODS = {"POST", "DOT", "C2", "M", "D", "S", "B", "CRUK", "AMAZONFEE", "BANK CHARGES"}


def kinds(lines: pd.DataFrame) -> pd.Series:
    """What each line counts as, of a frame with the columns number, sku, name, quantity, price."""
    total = lines["quantity"] * lines["price"]
    repeated = lines.duplicated(["number", "sku", "name", "quantity", "price"])
    test = lines["sku"].str.lower().str.startswith("test") | lines["name"].str.lower().str.startswith("test")
    kind = pd.Series("sold", index=lines.index)
    kind[(total < 0) | (lines["quantity"] < 0)] = "returned"
    kind[total == 0] = "free"
    kind[(total == 0) & (lines["quantity"] < 0)] = "correction"
    kind[lines["sku"].str.upper().isin(NO_GOODS)] = "other"
    kind[repeated] = "duplicate"
    kind[test] = "test"
    kind[lines["number"].str.startswith("A")] = "unpaid"
    return kind


def sales(lines: pd.DataFrame) -> dict[str, Any]:
    kind = kinds(lines)
    total = lines["quantity"] * lines["price"]
    sold = lines[kind == "sold"].assign(total=total, sku=lines["sku"].str.upper())
    products = sold.groupby("sku")["total"].sum().sort_values(ascending=False)
    months = sold.groupby(sold["created"].dt.strftime("%Y-%m"))["total"].sum()
    return {
        "revenue": float(sold["total"].sum()),
        "returned": float(-total[kind == "returned"].sum()),
        "other": float(total[kind == "other"].sum()),
        "orders": int(sold["number"].nunique()),
        "customers": int(sold["customer"].nunique()),
        "units": float(sold["quantity"].sum()),
        "months": {month: round(value, 2) for month, value in months.items()},
        "products": {sku: round(value, 2) for sku, value in products.head(10).items()},
        "kinds": {name: int(n) for name, n in kind.value_counts().items()},
    }


def retention(lines: pd.DataFrame) -> dict[str, Any]:
    orders = (
        lines.assign(total=lines["quantity"] * lines["price"])
        .groupby("number")
        .agg(total=("total", "sum"), customer=("customer", "first"), created=("created", "first"))
    )
    # of decimals that add up to nothing, floats leave something
    good = orders[(orders["total"] > 1e-6) & orders["customer"].notna() & ~orders.index.str.startswith("A")]
    month = good["created"].dt.year * 12 + good["created"].dt.month
    first = month.groupby(good["customer"]).transform("min")
    table = good.assign(first=first, later=month - first).groupby(["first", "later"])["customer"].nunique()
    several = good.groupby("customer").size() > 1
    return {
        "customers": int(good["customer"].nunique()),
        "repeat": int(several.sum()),
        "cells": {(f"{(f - 1) // 12}-{(f - 1) % 12 + 1:02d}", later): int(n) for (f, later), n in table.items()},
    }
