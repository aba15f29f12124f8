"""Make `_sync` of `_async`: the blocking client is the asynchronous one without its `async` and `await`.

`make client` runs this file, without the package, which needs `_sync`; a test holds that it is up to date. Needs
`unasync`, which developers have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import unasync

_FOLDER = Path(__file__).parent
_NAMES = {
    **{f"Async{name}": name for name in ("BaseTransport", "Client", "Http", "Retrying", "Session", "Sessions")},
    **{f"Async{name}": name for name in ("Approvals", "Chat", "Files", "Tools", "Transcripts")},
    "_async": "_sync",
    # a file, and the blocking way to open one
    "anyio": "io",
    "open_file": "open",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aiter_sse": "iter_sse",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
    "asyncio": "time",
}
_NOTE = "# Made of omniops_client/_async by `make client`. Do not change it here.\n"


def make(into: Path) -> None:
    """Write the blocking modules into the folder."""
    with tempfile.TemporaryDirectory() as folder:
        rule = unasync.Rule(f"{_FOLDER}/_async/", f"{folder}/", additional_replacements=_NAMES)
        unasync.unasync_files([str(path) for path in sorted(_FOLDER.glob("_async/*.py"))], [rule])
        into.mkdir(exist_ok=True)
        for path in Path(folder).rglob("*.py"):
            text = path.read_text().replace("asynchronous", "blocking")
            (into / path.name).write_text(_NOTE + text)


if __name__ == "__main__":
    make(_FOLDER / "_sync")
