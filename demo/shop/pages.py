"""The shop's own pages, as a WooCommerce theme makes them: a list of products, and each with its JSON-LD."""

from __future__ import annotations

import html
import json
from typing import Any

from demo.shop.store import Store

_PAGE = (
    '<!doctype html><html lang="en-US"><head><meta charset="utf-8"><title>{title}</title>{head}</head><body>'
    '<header><a href="/">Shop</a></header><main>{body}</main><footer>The demo shop</footer></body></html>'
)


def storefront(store: Store) -> str:
    """The list of all products."""
    rows = (f'<li><a href="{_path(p)}">{html.escape(p["name"])}</a></li>' for p in store.products)
    return _page("The demo shop", "", f"<h1>The demo shop</h1><ul>{''.join(rows)}</ul>")


def product_page(store: Store, base: str, slug: str) -> str | None:
    """One product's page; None where there is none of this name."""
    product = next((p for p in store.products if p["slug"] == slug), None)
    if product is None:
        return None
    return _page(product["name"], _linked_data(product, base), _shown(product))


def robots(base: str) -> str:
    return f"User-agent: *\nDisallow: /cart/\nDisallow: /my-account/\nSitemap: {base}/sitemap.xml\n"


def sitemap(store: Store, base: str) -> str:
    urls = "".join(f"<url><loc>{html.escape(base + _path(p))}</loc></url>" for p in store.products)
    return f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>'


def _path(product: dict[str, Any]) -> str:
    return f"/product/{product['slug']}/"


def _page(title: str, head: str, body: str) -> str:
    return _PAGE.format(title=html.escape(title), head=head, body=body)


def _linked_data(product: dict[str, Any], base: str) -> str:
    stock = "InStock" if product["stock_status"] == "instock" else "OutOfStock"
    offer = {
        "@type": "Offer",
        "price": product["price"],
        "priceCurrency": "USD",
        "availability": f"https://schema.org/{stock}",
        "url": base + _path(product),
    }
    data = {
        "@context": "https://schema.org/",
        "@type": "Product",
        "name": product["name"],
        "sku": product["sku"] or str(product["id"]),
        "description": product["description"],
        "offers": [offer],
    }
    # "</script>" in a product's text must not end it
    text = json.dumps(data).replace("<", "\\u003c")
    return f'<script type="application/ld+json">{text}</script>'


def _shown(product: dict[str, Any]) -> str:
    options = "".join(
        f"<tr><th>{html.escape(a['name'])}</th><td>{html.escape(', '.join(a['options']))}</td></tr>"
        for a in product["attributes"]
    )
    return (
        f'<h1 class="product_title">{html.escape(product["name"])}</h1><p class="price">${product["price"]}</p>'
        f"<div>{product['description']}</div><h2>Options</h2><table>{options}</table>"
        '<p><a href="/cart/">Cart</a></p>'
    )
