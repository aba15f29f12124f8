"""`ty server`: a type checker that stays warm, spoken to in the Language Server Protocol 3.17, one document at a time.

Synchronous, for a process that does nothing else. Whoever started that process bounds its time and its memory.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, BinaryIO

#: One value of the protocol's JSON.
Json = Any

#: Python as kernels have it. Modules that are not there are anything: what kernels have installed is not looked at.
_CONFIG = """\
[environment]
python-version = "3.11"
root = ["."]

[analysis]
allowed-unresolved-imports = ["**"]
"""
_DOCUMENT = "cell_under_check.py"


class ServerGone(Exception):
    """The type checker ended, or sent what is no message."""


class LanguageServer:
    """One `ty server` over one folder of stubs."""

    def __init__(self, program: str, root: Path) -> None:
        """Raises OSError, ServerGone."""
        (root / "ty.toml").write_text(_CONFIG)
        self._uri = (root / _DOCUMENT).as_uri()
        environment = {"HOME": str(root), "XDG_CACHE_HOME": str(root / ".cache"), "PATH": "", "RAYON_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - our own program; nothing of a cell's is in the arguments
            [program, "server"],
            cwd=root,
            env=environment | {"TY_MAX_PARALLELISM": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0
        self._version = 0
        workspace = {"uri": root.as_uri(), "name": "cell"}
        self._ask(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": root.as_uri(),
                "workspaceFolders": [workspace],
                "capabilities": {
                    "general": {"positionEncodings": ["utf-8"]},
                    "textDocument": {
                        "diagnostic": {"relatedInformation": True},
                        "publishDiagnostics": {"relatedInformation": True},
                    },
                    "workspace": {"configuration": True},
                },
            },
        )
        self._tell("initialized", {})

    @property
    def pid(self) -> int:
        return self._process.pid

    def diagnose(self, text: str) -> list[dict[str, Json]]:
        """Diagnostics of a text, as the protocol has them; columns count bytes of UTF-8.

        Raises:
            ServerGone
        """
        self._version += 1
        document = {"uri": self._uri, "version": self._version}
        if self._version == 1:
            opened = document | {"languageId": "python", "text": text}
            self._tell("textDocument/didOpen", {"textDocument": opened})
        else:
            self._tell("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})
        answer = self._ask("textDocument/diagnostic", {"textDocument": {"uri": self._uri}})
        items = answer.get("items", []) if isinstance(answer, dict) else []
        return [item for item in items if isinstance(item, dict)]

    def close(self) -> None:
        """End it, without asking."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _ask(self, method: str, params: Json) -> Json:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while True:
            message = self._receive()
            if "method" in message:
                if "id" in message:
                    self._send({"id": message["id"], "result": _reply(message)})
            elif message.get("id") == self._number:
                if "error" in message:
                    raise ServerGone(str(message["error"])[:500])
                return message.get("result")

    def _tell(self, method: str, params: Json) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Json]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        try:
            stream = _open(self._process.stdin)
            stream.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
            stream.flush()
        except OSError as error:
            raise ServerGone(str(error)) from None

    def _receive(self) -> dict[str, Json]:
        stream = _open(self._process.stdout)
        size = 0
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        if not size:
            raise ServerGone("the type checker ended")
        message = json.loads(stream.read(size))
        if not isinstance(message, dict):
            raise ServerGone("the type checker sent no message")
        return message


def _open(stream: object) -> BinaryIO:
    if stream is None:
        raise ServerGone("the type checker has no pipe")
    return stream  # type: ignore[return-value]


def _reply(message: dict[str, Json]) -> Json:
    """To what the server asks of an editor: there are no settings beside the file's."""
    if message["method"] == "workspace/configuration":
        return [{} for _ in message.get("params", {}).get("items", ())]
    return None
