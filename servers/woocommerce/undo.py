"""The call that takes another one back."""

from __future__ import annotations

from ..preview import Done, MakeUndo, Undo

#: A text that was cut for a person's eyes is no former value.
_CUT = "…"
_NOTHING = "(none)"


def remove_made(tool: str, key: str, *also: str) -> MakeUndo:
    """Of a tool that makes something: the one that removes it by its id, `key`; `also`: arguments that it shares."""

    def undo(done: Done) -> Undo:
        return Undo(tool, {**{name: done.args[name] for name in also}, key: done.result["id"]})

    return undo


def with_args(tool: str, *names: str) -> MakeUndo:
    """The same arguments to another tool."""

    def undo(done: Done) -> Undo:
        return Undo(tool, {name: done.args[name] for name in names})

    return undo


def former(tool: str, *keys: str, fields: tuple[str, ...]) -> MakeUndo:
    """Set the fields as they were, where a person was shown how that was; `keys`: arguments that name the object."""

    def undo(done: Done) -> Undo | None:
        changed = [name for name in fields if done.args.get(name) is not None]
        values = {name: done.before.get(name, _CUT) for name in changed}
        if not values or any(value.endswith(_CUT) for value in values.values()):
            return None
        told = {name: "" if value == _NOTHING else value for name, value in values.items()}
        return Undo(tool, {**{key: done.args[key] for key in keys}, **told})

    return undo


def former_status(done: Done) -> Undo | None:
    """An order's status."""
    status = done.before.get("status")
    return Undo("set_order_status", {"order_id": done.args["order_id"], "status": status}) if status else None


def from_trash(done: Done) -> Undo:
    """A product, with its former status where that is known."""
    return Undo(
        "restore_product", {"product_id": done.args["product_id"], "status": done.before.get("status", "draft")}
    )


def former_stock(done: Done) -> Undo | None:
    quantity = done.before.get("stock_quantity", "")
    args = {name: done.args.get(name) for name in ("product_id", "variation_id")}
    return Undo("set_stock", {**args, "quantity": int(quantity)}) if quantity.isdecimal() else None


def opposite_stock(done: Done) -> Undo:
    args = {name: done.args.get(name) for name in ("product_id", "variation_id")}
    return Undo("adjust_stock", {**args, "by": -done.args["by"]})
