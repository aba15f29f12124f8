"""Product categories. The store keeps no meta_data with them: a category is known by its name and parent."""

from __future__ import annotations

from html import unescape
from typing import Annotated, TypedDict

from msgspec import Meta

from ...context import ToolContext
from ...tool import OPERATOR, STAFF, tool
from .. import previews, undo
from ..arguments import Limit, Name, Removed, Search, Text, fields, named, query
from ..client import Object, Store, store_of
from ..create import create_named, remove
from ..once import alone
from ..shapes import Raw

PATH = "products/categories"
CategoryId = Annotated[int, Meta(ge=1)]
Parent = Annotated[int, Meta(description="id of the category above; 0 for none", ge=0)]


class Category(TypedDict):
    id: int
    name: str
    slug: str
    parent: Annotated[int, Meta(description="id; 0 for none")]
    description: str
    count: Annotated[int, Meta(description="published products in it")]


@tool(effect="read", roles=STAFF)
async def list_categories(
    ctx: ToolContext, *, search: Search = "", parent: Parent | None = None, limit: Limit = 100
) -> list[Category]:
    """Product categories, by name."""
    rows = await store_of(ctx).first(PATH, query(search=search, parent=parent), limit)
    return [_view(raw) for raw in rows]


@tool(effect="write", roles=OPERATOR, revert="delete_category", undo=undo.remove_made("delete_category", "category_id"))
async def create_category(ctx: ToolContext, *, name: Name, parent: Parent = 0, description: Text = "") -> Category:
    """Make a product category; there must be none of this name below the same parent."""

    async def find(store: Store) -> Object | None:
        async for raw in store.each(PATH, {"search": name, "parent": parent}):
            if unescape(str(raw["name"])).casefold() == name.casefold():
                return raw
        return None

    body = {"name": name, "parent": parent, "description": description}
    return _view(await create_named(ctx, PATH, body, find=find, what=f"a category {name!r} below {parent}"))


@tool(effect="write", roles=OPERATOR, revert="update_category with the former values")
async def update_category(
    ctx: ToolContext,
    *,
    category_id: CategoryId,
    name: Name | None = None,
    parent: Parent | None = None,
    description: Text | None = None,
) -> Category:
    """Rename, move or describe a category; what is left out stays."""
    body = fields(name=name, parent=parent, description=description)
    store, path = store_of(ctx), f"{PATH}/{category_id}"
    async with alone(store, path):
        # No stamp is possible, nor needed: the same values set twice are set.
        return _view(await store.put(path, body))


@tool(
    effect="critical",
    roles=OPERATOR,
    preview=previews.removal("products/categories/{category_id}", "category", previews.name_of, "count"),
)
async def delete_category(ctx: ToolContext, *, category_id: CategoryId) -> Removed:
    """Delete a category for good; its products stay. The store has no trash for categories."""
    before = await remove(ctx, f"{PATH}/{category_id}", force=True, what=f"category {category_id}")
    return Removed(id=category_id, name=named(before), permanently=True)


def _view(raw: Raw) -> Category:
    return Category(
        id=int(raw["id"]),
        name=unescape(str(raw["name"])),
        slug=str(raw.get("slug") or ""),
        parent=int(raw.get("parent") or 0),
        description=str(raw.get("description") or ""),
        count=int(raw.get("count") or 0),
    )
