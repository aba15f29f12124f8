"""From a task's known solution to what the scripted model plays: cells, the calls they make, and the answer.

The cells are what a good agent would write who follows the prompt: look first, at all that the decision needs, in one
cell; then make the changes with what was seen, and answer from the same cell. What a cell names it has been told
before, by the prompt, the customer or an earlier cell (tests/demo/test_tasks.py holds that).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demo.model.cells import (
    call_text,
    imports,
    literal,
    select_address,
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
_HAND_OVER = "transfer_to_human_agents"
_SWAPS = {"modify_pending_order_items", "exchange_delivered_order_items"}


@dataclass
class _Work:
    """One task under way: what is known of it, and which variable holds what."""

    task: Task
    data: RetailData
    user: Mapping[str, Any]
    number: int
    refused: Collection[int]
    #: What the customer wrote, in small letters.
    told: str

    def order(self, action: Action) -> Mapping[str, Any]:
        order: Mapping[str, Any] = self.data["orders"][action.arguments["order_id"]]
        return order

    @property
    def orders(self) -> list[Mapping[str, Any]]:
        """All of the customer's, newest first, as the shop lists them."""
        own = set(self.user["orders"])
        return [order for number, order in reversed(self.data["orders"].items()) if number in own]

    @property
    def writes(self) -> list[tuple[int, Action]]:
        return [(n, action) for n, action in enumerate(self.task.actions) if action.name in _WRITES]

    @property
    def acts(self) -> bool:
        """Something is done for the customer, or a person is called in."""
        return bool(self.writes) or any(action.name == _HAND_OVER for action in self.task.actions)


@dataclass
class _Cell:
    """A cell under way. What it imports follows from its calls."""

    lines: list[str]
    calls: list[Call]
    refused: bool = False
    replies: bool = False

    def step(self) -> Step:
        used: dict[str, list[str]] = {"support": ["reply"]} if self.replies else {}
        for call in self.calls:
            server, _, name = call.tool.partition(".")
            used.setdefault(server, []).append(name)
        header = [imports(server, names) for server, names in used.items()]
        return Step("\n".join([*header, "", *self.lines] if header else self.lines), tuple(self.calls), self.refused)


def solve(task: Task, data: RetailData, refused: Collection[int] = ()) -> Script:
    """The script for a task. `refused`: positions of the actions that the reference refuses."""
    user = customer_of(task, data)
    message = customer_message(task)
    work = _Work(task, data, user, customer_ids(data)[user["user_id"]], refused, message.lower())
    cells = [*_verify(work), *_asked(work), *_write(work)]
    cells = [*cells, *_hand_over(work, cells)]
    answer = _answer(work)
    if work.acts and not cells[-1].refused and not task.communicate:
        # nothing is left to be seen: the answer holds if the changes go well, and is sent only then
        cells[-1].lines.append(call_text("reply", {"text": answer}))
        cells[-1].replies = True
    return Script(task.id, message, tuple(cell.step() for cell in cells), answer)


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
    """Verify the customer and show what there is to decide from: orders, payment methods, variants in stock."""
    calls = [Call("woocommerce.verify_customer", dict(identity))]
    lines = [f"customer = {call_text('verify_customer', identity)}"]
    shown = _at_hand(work)
    if len(shown) < len(work.orders):
        numbers = [order["order_id"] for order in shown]
        lines.append(f"found = [lookup_order(order_id=n) for n in {literal(numbers)}]")
        calls += [Call("woocommerce.lookup_order", {"order_id": number}) for number in numbers]
    else:
        lines.append('found = list_orders(customer_id=customer["id"])')
        calls.append(Call("woocommerce.list_orders", {"customer_id": work.number}))
    if any("payment_method_id" in action.arguments for _, action in work.writes):
        lines.append('print(*customer["payment_methods"], sep="\\n")')
    lines += [
        'orders = {o["number"]: o for o in found}',
        "for o in found:",
        '    print(o["number"], o["status"], o["total"], o["shipping"]["city"], o["payments"][0]["payment_method_id"])',
        '    for l in o["line_items"]:',
        '        print("", l["item_id"], l["name"], l["price"], *l["options"].values())',
    ]
    items = [item for order in shown for item in order["items"]]
    words = _words(work, items)
    if words:
        ids = dict.fromkeys(i["product_id"] for i in items if any(word in i["name"].lower() for word in words))
        calls += [Call("woocommerce.get_product_details", {"product_id": int(each)}) for each in ids]
        one = len(words) == 1
        lines += [
            *([] if one else [f"words = {literal(words)}"]),
            'wanted = {l["name"]: l["product_id"] for o in found for l in o["line_items"]}',
            "for name, id in wanted.items():",
            f"    if {literal(words[0])} in name.lower():" if one else "    if any(w in name.lower() for w in words):",
            *_show_variants("        ", "id"),
        ]
    return _Cell(lines, calls)


def _show_variants(indent: str, product: str) -> list[str]:
    lines = [
        f'for v in get_product_details(product_id={product})["variants"]:',
        '    if v["in_stock"]:',
        '        print(name, v["item_id"], v["price"], *v["options"].values())',
    ]
    return [indent + line for line in lines]


def _wanted(work: _Work) -> list[str]:
    """Names of the products whose variants matter: those of what is exchanged, and those that are asked about."""
    swaps = [action for _, action in work.writes if action.name in _SWAPS]
    ids = [each["product_id"] for action in swaps for each in _old(work, action)]
    ids += [
        action.arguments["product_id"]
        for n, action in enumerate(work.task.actions)
        if action.name == "get_product_details" and n not in work.refused
    ]
    return list(dict.fromkeys(work.data["products"][each]["name"] for each in ids))


def _words(work: _Work, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each product that matters and was bought a word of its name that the customer said."""
    bought = {item["name"] for item in items}
    words = []
    for name in _wanted(work):
        said = [word for word in reversed(name.lower().split()) if len(word) > 2 and word in work.told]
        if name in bought and said:
            words.append(said[0])
    return list(dict.fromkeys(words))


def _asked(work: _Work) -> list[_Cell]:
    """A further look at products that the customer called otherwise than the shop does: the orders tell their names."""
    items = {item["name"]: item for order in _at_hand(work) for item in order["items"]}
    words = _words(work, list(items.values()))
    cells: list[_Cell] = []
    for name in _wanted(work):
        if name not in items or any(word in name.lower() for word in words):
            continue
        call = Call("woocommerce.get_product_details", {"product_id": int(items[name]["product_id"])})
        lines = [f"name = {literal(name)}", *_show_variants("", "wanted[name]")]
        if not words:
            lines.insert(1, 'wanted = {l["name"]: l["product_id"] for o in found for l in o["line_items"]}')
        if cells:
            cells[0].lines += lines[:1] + lines[-3:]
            cells[0].calls.append(call)
        else:
            cells.append(_Cell(lines, [call]))
    return cells


def _order_numbers(work: _Work) -> list[str]:
    return list(dict.fromkeys(a.arguments["order_id"] for a in work.task.actions if "order_id" in a.arguments))


def _old(work: _Work, action: Action) -> list[Mapping[str, Any]]:
    items = work.order(action)["items"] if "order_id" in action.arguments else []
    wanted = action.arguments.get("item_ids", ())
    return [next(each for each in items if each["item_id"] == item_id) for item_id in wanted]


def _write(work: _Work) -> list[_Cell]:
    """The changes: in one cell, but for those that the shop refuses, which have one of their own and end it."""
    cells: list[_Cell] = []
    for n, action in work.writes:
        text, call = _one_write(work, action)
        refused = n in work.refused
        if refused or not cells or cells[-1].refused:
            cells.append(_Cell([], [], refused))
        if work.task.communicate and "order_id" in action.arguments:
            cells[-1].lines += [f"done = {text}", 'print(done["total"], done["payments"])']
        else:
            cells[-1].lines.append(text)
        cells[-1].calls.append(call)
    return cells


def _one_write(work: _Work, action: Action) -> tuple[str, Call]:
    given = action.arguments
    if action.name == "modify_user_address":
        address = select_address(given, work.user, _by_number(work), ('customer["address"]', work.user["address"]))
        arguments = {"customer_id": work.number, **shop_address(given)}
        text = f'change_customer_address(customer_id=customer["id"], **{address})'
        return text, Call("woocommerce.change_customer_address", arguments)
    tool, number = _ORDER_TOOLS[action.name], given["order_id"].lstrip("#")
    arguments = {"order_id": number}
    address = ""
    if "reason" in given:
        arguments["reason"] = given["reason"]
    for name in ("item_ids", "new_item_ids"):
        if name in given:
            arguments[name] = [int(each) for each in given[name]]
    if "payment_method_id" in given:
        arguments["payment_method_id"] = given["payment_method_id"]
    text = call_text(tool, arguments)
    if "address1" in given:
        former = (f'orders["{number}"]["shipping"]', work.order(action)["address"])
        address = select_address(given, work.user, _by_number(work), former)
        text = f"{text[:-1]}, **{address})"
        arguments |= shop_address(given)
    return text, Call(f"woocommerce.{tool}", arguments)


def _at_hand(work: _Work) -> list[Mapping[str, Any]]:
    """The orders that are looked up: those that the customer named, if those are all that matter; else all."""
    needed = [number for number in _order_numbers(work) if number in work.data["orders"]]
    if needed and all(number.lower() in work.told for number in needed):
        return [order for order in work.orders if order["order_id"].lower() in work.told]
    return work.orders


def _by_number(work: _Work) -> list[tuple[str, Mapping[str, Any]]]:
    """The same, each with the expression that gives it."""
    return [(f'orders["{order["order_id"].lstrip("#")}"]', order) for order in _at_hand(work)]


def _hand_over(work: _Work, cells: list[_Cell]) -> list[_Cell]:
    """The hand-over, at the end of the last cell of changes where there is one that went well."""
    given = [action.arguments for action in work.task.actions if action.name == _HAND_OVER]
    last = cells[-1] if work.writes and not cells[-1].refused else _Cell([], [])
    for arguments in given:
        last.lines.append(call_text("hand_over", arguments))
        last.calls.append(Call("support.hand_over", {"summary": arguments["summary"]}))
    return [last] if given and last is not cells[-1] else []


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
