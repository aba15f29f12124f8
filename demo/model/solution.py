"""From a task's known solution to what the scripted model plays: cells, the calls they make, and the answer.

The cells are what a good agent would write: verify the customer and fetch the orders; choose from what was fetched, by
names and options; make the changes; answer. Ids are taken from variables that earlier cells left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from demo.model.cells import (
    call_text,
    imports,
    literal,
    select_address,
    select_item,
    select_method,
    select_order,
    shop_address,
)
from demo.model.script import Call, Script, Step
from demo.shop.seed import customer_ids
from demo.tau import Action, RetailData, Task

_ORDER_TOOLS = {
    "cancel_pending_order": "cancel_order",
    "modify_pending_order_address": "change_order_address",
    "modify_pending_order_items": "change_order_items",
    "modify_pending_order_payment": "change_order_payment",
    "return_delivered_order_items": "return_items",
    "exchange_delivered_order_items": "exchange_items",
}
_WRITES = {*_ORDER_TOOLS, "modify_user_address"}
_SWAPS = {"modify_pending_order_items", "exchange_delivered_order_items"}

_NAMES = """\
def names(order):
    return [line["name"] for line in order["line_items"]]
"""
_ITEM = """\
def item(order, name, options={}):
    return next(l for l in order["line_items"] if l["name"] == name and options.items() <= l["options"].items())
"""
_VARIANT = """\
def variant(old, changes):
    options = old["options"] | changes
    return next(v for v in products[old["product_id"]]["variants"] if v["options"] == options and v["in_stock"])
"""


@dataclass
class _Work:
    """One task under way: what is known of it, and which variable holds what."""

    task: Task
    data: RetailData
    user: Mapping[str, Any]
    number: int
    refused: Collection[int]
    #: Orders at hand: number to the variable or expression that holds it.
    variables: dict[str, str] = field(default_factory=dict)
    #: Whether the variable `orders` holds all of the customer's orders, and not just those that they named.
    listed: bool = False

    def order(self, action: Action) -> Mapping[str, Any]:
        order: Mapping[str, Any] = self.data["orders"][action.arguments["order_id"]]
        return order

    @property
    def orders(self) -> list[Mapping[str, Any]]:
        return [self.data["orders"][number] for number in self.user["orders"]]

    @property
    def writes(self) -> list[tuple[int, Action]]:
        return [(n, action) for n, action in enumerate(self.task.actions) if action.name in _WRITES]


@dataclass
class _Cell:
    """A cell under way. What it imports follows from its calls."""

    lines: list[str]
    calls: list[Call]
    refused: bool = False

    def step(self) -> Step:
        used: dict[str, list[str]] = {}
        for call in self.calls:
            server, _, name = call.tool.partition(".")
            used.setdefault(server, []).append(name)
        header = [imports(server, names) for server, names in used.items()]
        return Step("\n".join([*header, "", *self.lines] if header else self.lines), tuple(self.calls), self.refused)


def solve(task: Task, data: RetailData, refused: Collection[int] = ()) -> Script:
    """The script for a task. `refused`: positions of the actions that the reference refuses."""
    user = customer_of(task, data)
    work = _Work(task, data, user, customer_ids(data)[user["user_id"]], refused)
    cells = [*_verify(work), *_together(work, _choose(work), _write(work)), *_hand_over(work)]
    return Script(task.id, customer_message(task), tuple(cell.step() for cell in cells), _answer(work))


def _together(work: _Work, choice: _Cell | None, writes: list[_Cell]) -> list[_Cell]:
    """Variants are looked at before they are ordered; other choices and their change are one cell."""
    if choice is None:
        return writes
    if not writes or any(action.name in _SWAPS for _, action in work.writes):
        return [choice, *writes]
    first, *rest = writes
    return [_Cell([*choice.lines, *first.lines], [*choice.calls, *first.calls], first.refused), *rest]


def customer_of(task: Task, data: RetailData) -> Mapping[str, Any]:
    """Who the task's customer is, from what they tell of themselves."""
    told = task.known_info

    def is_told(user: Mapping[str, Any]) -> bool:
        name, postcode = user["name"], user["address"]["zip"]
        full = name["first_name"] in told and name["last_name"] in told and postcode in told
        return full or user["email"] in told or user["user_id"] in told

    found: Mapping[str, Any] = next(user for user in data["users"].values() if is_told(user))
    return found


def customer_message(task: Task) -> str:
    """What the customer writes: all at once, with all they know and their consent, for there is one turn."""
    told = [f"My request, as I was asked to put it: {task.reason}", f"Who I am: {task.known_info}"]
    if task.instructions:
        told.append(f"Also: {task.instructions}.")
    told.append(
        "I have checked the details and agree to every change that this asks for, the last choice I name where there "
        "are several. Please do it now without asking back, and tell me what you did."
    )
    return "\n".join(told)


def _verify(work: _Work) -> list[_Cell]:
    """Find the customer, with the tries that fail, and fetch the orders that matter."""
    tries = [(n, a) for n, a in enumerate(work.task.actions) if a.name.startswith("find_user_id")]
    cells = []
    for _, action in (each for each in tries if each[0] in work.refused):
        arguments = _identity(action.arguments)
        call = Call("woocommerce.verify_customer", arguments)
        cells.append(_Cell([f"customer = {call_text('verify_customer', arguments)}"], [call], refused=True))
    good = [action.arguments for n, action in tries if n not in work.refused]
    arguments = _identity(good[-1]) if good else _told_identity(work)
    return [*cells, _fetch(work, arguments)]


def _identity(found_by: Mapping[str, Any]) -> dict[str, Any]:
    names = {"zip": "postcode"}
    return {names.get(key, key): value for key, value in found_by.items()}


def _told_identity(work: _Work) -> dict[str, Any]:
    user = work.user
    if user["email"] in work.task.known_info:
        return {"email": user["email"]}
    return {**user["name"], "postcode": user["address"]["zip"]}


def _fetch(work: _Work, identity: Mapping[str, Any]) -> _Cell:
    calls = [Call("woocommerce.verify_customer", dict(identity))]
    verify = f"customer = {call_text('verify_customer', identity)}"
    wanted = [number for number in _order_numbers(work) if number in work.data["orders"]]
    show = 'for o in orders:\n    print(o["number"], o["status"], o["shipping"]["city"], names(o))'
    helpers = [_NAMES]
    if not (wanted and all(number in work.task.reason for number in wanted)):
        work.listed = True
        fetch = 'orders = list_orders(customer_id=customer["id"])'
        calls.append(Call("woocommerce.list_orders", {"customer_id": work.number}))
    else:
        fetch = f"orders = [lookup_order(order_id=number) for number in {literal(wanted)}]"
        calls += [Call("woocommerce.lookup_order", {"order_id": number}) for number in wanted]
        if len(wanted) == 1:
            work.variables[wanted[0]] = "order"
            fetch = f'order = lookup_order(order_id="{wanted[0]}")'
            show = 'print(order["status"], [line["name"] for line in order["line_items"]])'
            helpers = []
    if any("item_ids" in action.arguments for _, action in work.writes):
        helpers.append(_ITEM)
    return _Cell([*helpers, verify, fetch, show], calls)


def _order_numbers(work: _Work) -> list[str]:
    return list(dict.fromkeys(a.arguments["order_id"] for a in work.task.actions if "order_id" in a.arguments))


def _choose(work: _Work) -> _Cell | None:
    """Find orders, items, new variants and payment methods in what was fetched; fetch products as needed."""
    lines: list[str] = []
    targets = list(dict.fromkeys(a.arguments["order_id"] for _, a in work.writes if "order_id" in a.arguments))
    for number in targets:
        if number not in work.variables:
            name = "order" if len(targets) == 1 else f"order_{targets.index(number) + 1}"
            about = [
                each["name"] for _, a in work.writes if a.arguments.get("order_id") == number for each in _old(work, a)
            ]
            lines.append(f"{name} = {select_order(work.data['orders'][number], work.orders, about)}")
            work.variables[number] = name
    lines += [line for n, action in work.writes for line in _choices(work, n, action)]
    fetched, calls = _fetch_products(work)
    lines += fetched
    lines += [line for n, action in work.writes for line in _new_variants(work, n, action)]
    return _Cell(lines, calls) if lines else None


def _old(work: _Work, action: Action) -> list[Mapping[str, Any]]:
    items = work.order(action)["items"] if "order_id" in action.arguments else []
    wanted = action.arguments.get("item_ids", ())
    return [next(each for each in items if each["item_id"] == item_id) for item_id in wanted]


def _suffix(work: _Work, position: int) -> str:
    """Distinguishes the variables of several changes."""
    writes = [n for n, action in work.writes if "payment_method_id" in action.arguments]
    return "" if len(writes) < 2 else f"_{writes.index(position) + 1}"


def _choices(work: _Work, position: int, action: Action) -> list[str]:
    """What a change takes from the order and the customer: the items and the payment method."""
    if "payment_method_id" not in action.arguments:
        return []
    suffix, order = _suffix(work, position), work.order(action)
    variable = work.variables[action.arguments["order_id"]]
    method = select_method(action.arguments["payment_method_id"], order, work.user, variable)
    old = _old(work, action)
    if not old:
        return [f"method{suffix} = {method}"]
    items = ", ".join(select_item(each, order, variable) for each in old)
    lines = [f"items{suffix} = [{items}]", f"method{suffix} = {method}"]
    if action.name not in _SWAPS:
        total = f'round(sum(float(i["price"]) for i in items{suffix}), 2)'
        lines.append(f'print([i["name"] for i in items{suffix}], {total}, method{suffix})')
    return lines


def _fetch_products(work: _Work) -> tuple[list[str], list[Call]]:
    """Lines and calls that fetch the products of what is exchanged, and those that the customer asks about."""
    swaps = [(n, action) for n, action in work.writes if action.name in _SWAPS]
    old = [each for _, action in swaps for each in _old(work, action)]
    ids = list(dict.fromkeys(each["product_id"] for each in old))
    lines, calls = [], [Call("woocommerce.get_product_details", {"product_id": int(each)}) for each in ids]
    if ids:
        chosen = " + ".join(f"items{_suffix(work, n)}" for n, _ in swaps)
        lines += [
            f'wanted = dict.fromkeys(i["product_id"] for i in {chosen})',
            "products = {p: get_product_details(product_id=p) for p in wanted}",
        ]
    asked = [
        a.arguments["product_id"]
        for n, a in enumerate(work.task.actions)
        if a.name == "get_product_details" and n not in work.refused
    ]
    for product_id in dict.fromkeys(each for each in asked if each not in ids):
        name = work.data["products"][product_id]["name"]
        bought = any(each["name"] == name for order in work.orders for each in order["items"])
        if not (bought and work.listed):
            continue
        find = f'next(l["product_id"] for o in orders for l in o["line_items"] if l["name"] == {literal(name)})'
        lines += [
            f"asked = get_product_details(product_id={find})",
            'print(asked["name"], sum(v["in_stock"] for v in asked["variants"]), "variants in stock")',
        ]
        calls.append(Call("woocommerce.get_product_details", {"product_id": int(product_id)}))
    return lines, calls


def _new_variants(work: _Work, position: int, action: Action) -> list[str]:
    if action.name not in _SWAPS:
        return []
    suffix = _suffix(work, position)
    new = [
        f"variant(items{suffix}[{n}], {literal(_changes(work, old, new_id))})"
        for n, (old, new_id) in enumerate(zip(_old(work, action), action.arguments["new_item_ids"], strict=True))
    ]
    first = next(n for n, each in work.writes if each.name in _SWAPS) == position
    return [
        *(["", _VARIANT] if first else []),
        f"new{suffix} = [{', '.join(new)}]",
        f"for old, v in zip(items{suffix}, new{suffix}):",
        '    print(old["name"], old["price"], "->", v["price"], v["options"])',
    ]


def _changes(work: _Work, old: Mapping[str, Any], new_id: str) -> dict[str, str]:
    """The options in which the new variant differs from the old item."""
    options = work.data["products"][old["product_id"]]["variants"][new_id]["options"]
    return {name: value for name, value in options.items() if old["options"].get(name) != value}


def _write(work: _Work) -> list[_Cell]:
    """The changes: in one cell, but for those that the shop refuses, which have one of their own and end it."""
    cells: list[_Cell] = []
    for n, action in work.writes:
        text, call = _one_write(work, n, action)
        refused = n in work.refused
        if refused or not cells or cells[-1].refused:
            cells.append(_Cell([], [], refused))
        cells[-1].lines += text
        cells[-1].calls.append(call)
    return cells


def _one_write(work: _Work, position: int, action: Action) -> tuple[list[str], Call]:
    given = action.arguments
    if action.name == "modify_user_address":
        address = select_address(given, work.user, _at_hand(work), ('customer["address"]', work.user["address"]))
        arguments = {"customer_id": work.number, **shop_address(given)}
        text = f'done = change_customer_address(customer_id=customer["id"], **{address})'
        return [text, 'print(done["address"])'], Call("woocommerce.change_customer_address", arguments)
    tool, variable = _ORDER_TOOLS[action.name], work.variables[given["order_id"]]
    suffix = _suffix(work, position) if "payment_method_id" in given else ""
    texts = [f'order_id={variable}["number"]']
    arguments = {"order_id": given["order_id"].lstrip("#")}
    if "reason" in given:
        texts.append(f"reason={literal(given['reason'])}")
        arguments["reason"] = given["reason"]
    if "address1" in given:
        former = (f'{variable}["shipping"]', work.order(action)["address"])
        address = select_address(given, work.user, _at_hand(work), former)
        texts.append(f"**{address}")
        arguments |= shop_address(given)
    if "item_ids" in given:
        texts.append(f'item_ids=[i["item_id"] for i in items{suffix}]')
        arguments["item_ids"] = [int(each) for each in given["item_ids"]]
    if "new_item_ids" in given:
        texts.append(f'new_item_ids=[v["item_id"] for v in new{suffix}]')
        arguments["new_item_ids"] = [int(each) for each in given["new_item_ids"]]
    if "payment_method_id" in given:
        texts.append(f"payment_method_id=method{suffix}")
        arguments["payment_method_id"] = given["payment_method_id"]
    return [f"done = {tool}({', '.join(texts)})", 'print(done["number"], done["status"])'], Call(
        f"woocommerce.{tool}", arguments
    )


def _at_hand(work: _Work) -> list[tuple[str, Mapping[str, Any]]]:
    """Orders whose addresses an expression can take: those in variables, then all that were listed."""
    found = [(variable, work.data["orders"][number]) for number, variable in work.variables.items()]
    if not work.listed:
        return found
    return found + [
        (f'next(o for o in orders if o["shipping"]["city"] == {literal(order["address"]["city"])})', order)
        for order in work.orders
        if sum(each["address"]["city"] == order["address"]["city"] for each in work.orders) == 1
    ]


def _hand_over(work: _Work) -> list[_Cell]:
    given = [action.arguments for action in work.task.actions if action.name == "transfer_to_human_agents"]
    return [
        _Cell([call_text("hand_over", arguments)], [Call("support.hand_over", {"summary": arguments["summary"]})])
        for arguments in given
    ]


_DONE = {
    "cancel_pending_order": "order {order} is cancelled and refunded to the way you paid",
    "modify_pending_order_address": "order {order} now goes to the new address",
    "modify_pending_order_items": "order {order} now holds the items you chose, and the price difference is settled",
    "modify_pending_order_payment": "order {order} is now paid with the method you named, and the first one refunded",
    "return_delivered_order_items": "the return for order {order} is requested; an e-mail says how to send it back",
    "exchange_delivered_order_items": "the exchange for order {order} is requested; an e-mail says how to send it back",
    "modify_user_address": "your own address is changed",
}


def _answer(work: _Work) -> str:
    done, not_done = [], []
    for n, action in work.writes:
        number = str(action.arguments.get("order_id", ""))
        if n in work.refused:
            not_done.append(f"what you asked first for order {number} is not possible")
        else:
            done.append(_DONE[action.name].format(order=number))
    handed = any(action.name == "transfer_to_human_agents" for action in work.task.actions)
    parts = [*done, *not_done, *(["a colleague takes over from here"] if handed else [])]
    told = f" To your questions: {', '.join(work.task.communicate)}." if work.task.communicate else ""
    text = "; ".join(parts) if parts else "I have looked this up and changed nothing"
    return f"Hello {work.user['name']['first_name']}, {text}.{told}"
