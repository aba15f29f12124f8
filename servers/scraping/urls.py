"""URLs as a crawl compares them."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from .addresses import Refused

LONGEST = 2_000
#: Say where a visitor came from, not what the page is.
_TRACKING = ("utm_", "gclid", "fbclid", "mc_cid", "mc_eid", "msclkid")
#: Files that are no pages.
_FILES = frozenset(
    {
        "7z", "avi", "bmp", "css", "csv", "doc", "docx", "eot", "exe", "gif", "gz", "ico", "iso", "jpeg", "jpg", "js",
        "json", "mjs", "mov", "mp3", "mp4", "mpg", "odt", "ogg", "otf", "pdf", "png", "ppt", "pptx", "rar", "rss",
        "svg", "tar", "tgz", "tif", "tiff", "ttf", "wav", "webm", "webp", "woff", "woff2", "xls", "xlsx", "zip",
    }
)  # fmt: skip
_PORTS = {"http": 80, "https": 443}


def normal(url: str, base: str = "") -> str:
    """The URL, absolute and in one form: no fragment, no tracking, the default port left out.

    Raises:
        Refused: not http(s), with a user name, without a host, or not a URL.
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()) if base else url.strip())
        port = parts.port
    except ValueError as error:
        raise Refused(f"{url[:200]!r} is no URL: {error}") from None
    if parts.scheme not in _PORTS:
        raise Refused(f"{url[:200]!r}: only http and https are fetched")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise Refused(f"{parts.hostname!r}: a URL with a user name is not fetched")
    host = _host(parts)
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != _PORTS[parts.scheme]:
        host = f"{host}:{port}"
    query = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not k.lower().startswith(_TRACKING)]
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=-._~")
    made = urlunsplit((parts.scheme, host, path, urlencode(query), ""))
    if len(made) > LONGEST:
        raise Refused(f"{made[:100]!r}...: a URL of over {LONGEST} characters")
    return made


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    # a backslash, white space or a percent sign is read differently by different programs
    if not host or any(c in '\\%<>^`{|}" ' or c.isspace() or ord(c) < 33 for c in host):
        raise Refused(f"{parts.netloc[:200]!r} is no host")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise Refused(f"{host[:200]!r} is no host") from None


def origin(url: str) -> str:
    """`https://host:port` of a normal URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def host_and_port(url: str) -> tuple[str, int]:
    """Of a normal URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


def is_page(url: str) -> bool:
    """False where the name says that it is an image, an archive and the like."""
    name = urlsplit(url).path.rpartition("/")[2]
    return name.rpartition(".")[2].lower() not in _FILES if "." in name else True
