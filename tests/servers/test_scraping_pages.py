"""What is read off a page, and how its text is cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.scraping.addresses import Refused
from servers.scraping.chunks import chunks_of
from servers.scraping.markup import decoded, from_html, from_text, read
from servers.scraping.page import Block, Content, Product, Source
from servers.scraping.products import amount
from servers.scraping.reader import Reader
from servers.scraping.robots import Robots


def words(texts: Sequence[str]) -> list[int]:
    """A token is a word of up to ten characters."""
    return [sum(-(-len(word) // 10) for word in text.split()) for text in texts]


def page(head: str = "", body: str = "") -> Content:
    return from_html(f"<html><head>{head}</head><body>{body}</body></html>", 100)


def linked(text: str) -> str:
    return f'<script type="application/ld+json">{text}</script>'


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (linked('{"@type": "Product", "name": "Mug", "sku": "M-1", "offers":'
            ' {"price": 12.5, "priceCurrency": "EUR"}}'), ""),
        (
            linked('[{"@type": "WebSite"}, {"@graph": [{"@type": ["Product", "Thing"], "name": "Mug",'
                   ' "sku": "M-1", "offers": [{"priceSpecification": [{"price": "12.50", "priceCurrency":'
                   ' "eur"}]}]}]}]'),
            "",
        ),
        (
            linked('{"@type": "http://schema.org/Product", "name": "Mug"}'),
            '<div itemscope itemtype="https://schema.org/Product"><i itemprop="sku">M-1</i>'
            '<meta itemprop="price" content="12.50"><meta itemprop="priceCurrency" content="EUR"></div>',
        ),
        (
            '<meta property="og:title" content="Mug"><meta property="product:price:amount" content="12,50">'
            '<meta property="product:price:currency" content="EUR"><meta property="product:sku" content="M-1">',
            "",
        ),
        (
            linked("{broken"),
            '<div class="product"><div class="summary"><h1 class="product_title">Mug</h1><p class="price">'
            '<del>15,00 €</del><ins><span class="amount">12,50 €</span></ins></p>'
            '<span class="sku">M-1</span></div></div>',
        ),
    ],
    ids=["json-ld", "graph", "microdata beside it", "open graph", "theme"],
)  # fmt: skip
def test_price_and_sku_are_kept_however_the_page_says_them(head: str, body: str) -> None:
    product = page(head, body).product
    assert product is not None
    assert (product.name, product.sku, float(product.price), product.currency) == ("Mug", "M-1", 12.5, "EUR")


def test_json_ld_comes_before_what_is_shown() -> None:
    body = '<div class="product"><div class="summary"><p class="price">$99</p><b class="sku">X</b></div></div>'
    found = page(linked('{"@type": "Product", "name": "Mug", "sku": "M-1", "offers": {"price": "12.5"}}'), body).product
    assert found is not None
    assert (found.price, found.sku) == ("12.5", "M-1")


def test_a_list_of_products_is_no_product() -> None:
    each = '{"@type": "Product", "name": "Mug"}'
    assert page(linked(f"[{each}, {each}]")).product is None
    assert page(body="<p>hello</p>").product is None


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("12.5", "12.5"), ("1.299,00 €", "1299.00"), ("$1,299.00", "1299.00"), ("1,299", "1299"),
        ("1 299,90", "1299.90"),
        ("CHF 1'299.–", "1299"), ("12,50", "12.50"), ("1.000.000", "1000000"), ("free", ""), ("", ""), ("-", ""),
    ],
)  # fmt: skip
def test_prices_are_read_as_people_write_them(text: str, price: str) -> None:
    assert amount(text) == price


def test_the_main_part_is_read_with_its_headings_lists_and_rows() -> None:
    content = page(
        "<title>Fees</title><base href='/help/'>",
        "<nav>Home</nav><header>Logo</header><main><h1>All <b>fees</b></h1><p>One<br>two</p>tail <i>of</i> it"
        "<ul>\n<li>first</li>\n<li>second</ul><h2>Rows</h2><table>\n<tr>\n<th>A</th>\n<th>B</th>\n</tr>\n<tr><td>1<td>2</table>"
        "<pre>a\n  b</pre><a href='x'>a link that makes the main part long enough to be taken for the page</a></main>"
        "<footer>Imprint</footer><script>alert(1)</script>",
    )
    assert [(block.level, block.text) for block in content.blocks][:-1] == [
        (1, "All fees"),
        (0, "One\ntwo"),
        (0, "tail of it"),
        (0, "- first"),
        (0, "- second"),
        (2, "Rows"),
        (0, "A | B"),
        (0, "1 | 2"),
        (0, "a\n  b"),
    ]
    assert content.links == ("/help/x",)


def test_markdown_is_read_as_such() -> None:
    content = read(Source(b"# Fees\nOne\ntwo\n\n## More\n- a\n- b\n", "text/markdown; charset=utf-8"))
    assert content.title == "Fees"
    assert content.blocks == (Block(1, "Fees"), Block(0, "One\ntwo"), Block(2, "More"), Block(0, "- a\n- b"))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("Grüße".encode(), "text/html"),
        ("\ufeffGrüße".encode("utf-16-le"), "text/html; charset=utf-8"),
        ("Grüße".encode("latin-1"), "text/html; charset=ISO-8859-1"),
        ("Grüße".encode("latin-1"), "text/html"),
        ('<meta charset="cp1252">Grüße'.encode("cp1252"), "text/html"),
        ("Grüße".encode(), "text/html; charset=no-such-thing"),
        ("Grüße".encode(), "text/html; charset=base64"),
    ],
)
def test_a_text_is_read_in_its_encoding(body: bytes, kind: str) -> None:
    assert decoded(body, kind).endswith("Grüße")


def test_a_piece_carries_the_headings_above_it() -> None:
    blocks = (Block(1, "Fees"), Block(0, "all"), Block(2, "Cards"), Block(0, "a"), Block(3, "Gold"), Block(0, "b"))
    content = Content(title="Fees", blocks=(*blocks, Block(2, "Loans"), Block(0, "c")))
    chunks, whole = chunks_of(content, words, 50, 100)
    assert whole
    assert [(chunk.heading, chunk.text) for chunk in chunks] == [
        ("Fees", "all"),
        ("Fees > Cards", "a"),
        ("Fees > Cards > Gold", "b"),
        ("Fees > Loans", "c"),
    ]


def test_a_products_facts_are_a_piece_of_their_own() -> None:
    product = Product(name="Mug", sku="M-1", price="12.5", currency="EUR")
    [chunk], _ = chunks_of(Content(title="Mug", product=product), words, 50, 10)
    assert chunk.text == "Mug\nSKU: M-1\nPrice: 12.5 EUR"


def test_what_is_too_much_for_a_page_is_left_out_and_said() -> None:
    content = Content(title="T", blocks=tuple(Block(0, "word " * 40) for _ in range(100)))
    chunks, whole = chunks_of(content, words, 50, 7)
    assert (len(chunks), whole) == (7, False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.text(st.characters(codec="utf-8"), max_size=400)), max_size=12),
    st.integers(50, 90),
)
def test_no_piece_is_over_the_limit_and_no_word_is_lost(parts: list[tuple[int, str]], limit: int) -> None:
    content = Content(title="Title", blocks=tuple(Block(level, text) for level, text in parts if text.strip()))
    chunks, whole = chunks_of(content, words, limit, 10_000)
    assert whole
    assert all(words([chunk.text])[0] <= limit for chunk in chunks)
    kept = "".join("".join(chunk.text for chunk in chunks).split())
    assert kept == "".join("".join(block.text for block in content.blocks if not block.level).split())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="<>/=\"'ab-! divph1tableld", max_size=300).map(str.encode))
def test_no_bytes_break_the_reading(body: bytes) -> None:
    content = read(Source(body, "text/html"))
    assert all(block.text for block in content.blocks)
    from_text(body.decode("utf-8", "replace"))


async def test_the_readers_process_has_nothing_of_the_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOPS_SECRET", "hunter2")
    reader = Reader()
    await reader.read(Source(b"<p>hello</p>"))
    assert reader._process is not None
    with open(f"/proc/{reader._process.pid}/environ", "rb") as file:
        assert b"hunter2" not in file.read()
    await reader.close()


async def test_a_page_that_kills_its_reader_is_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(memory_bytes=300 * 1024 * 1024)
    with pytest.raises(Refused, match="broke down"):
        await reader.read(Source(b"<b>" * 8_000_000))
    assert (await reader.read(Source(b"<title>next</title>"))).title == "next"
    await reader.close()


def test_robots_txt_is_read_for_our_own_name_first() -> None:
    robots = Robots(
        "User-agent: *\nDisallow: /\n\nUser-agent: omniopsbot\nDisallow: /a*b$\nCrawl-delay: 2\n", "OmniOpsBot/1.0"
    )
    assert robots.allows("https://x.example/")
    assert not robots.allows("https://x.example/a/b")
    assert robots.delay_s == 2
    assert Robots("\x00garbage: : :\nDisallow", "OmniOpsBot/1.0").allows("https://x.example/")
    assert not Robots("User-agent: *\nDisallow: /", "OmniOpsBot/1.0").allows("https://x.example/a")
