"""What tests use from npm, installed once for a run: real MCP servers, the `.mcp.json` that names them, and more."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker_daemon import shared_folder

PACKAGES = (
    "@modelcontextprotocol/server-everything@^2026.8.31",
    "@modelcontextprotocol/server-filesystem@^2026.8.31",
    # the library that JupyterLab and VS Code speak to Jupyter servers with
    "@jupyterlab/services@^7.4",
    "ws@^8",
    "@modelcontextprotocol/inspector-cli@^1.0.3",  # what `inspector@1 --cli` runs; inspector 2 wants Node.js 22
    "@playwright/mcp@>=0.0.70 <0.0.78",  # later ones want Node.js 20; Debian 12 has 18
)
_INSTALL = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--prefix", ".")
_INSTALL_S = 300
#: Its server over HTTP wants a global that Node.js 18 does not have yet.
_CRYPTO = 'data:text/javascript,import{webcrypto}from"node:crypto";globalThis.crypto||=webcrypto'


def npm_folder() -> Path:
    """`node_modules` with the servers; skips where there is no npm."""
    missing = [name for name in ("node", "npm") if not shutil.which(name)]
    if missing:
        pytest.skip(f"MCP servers from npm cannot be installed here (missing: {', '.join(missing)})")
    folder = shared_folder() / "npm"
    with (shared_folder() / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the second process of this run finds them installed
        if not (folder / "installed").exists():
            folder.mkdir(exist_ok=True)
            command = [*_INSTALL, *PACKAGES]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
            if done.returncode:
                pytest.fail(f"npm install failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            # MCP Inspector's command line looks for it where the whole of MCP Inspector, 160 MB, would have it
            (folder / "node_modules" / "@modelcontextprotocol" / "package.json").write_text(
                '{"name": "@modelcontextprotocol/inspector", "version": "1"}'
            )
            (folder / "installed").touch()
    return folder / "node_modules"


def inspector(modules: Path, *arguments: str) -> list[str]:
    """The command line of MCP Inspector."""
    script = modules / "@modelcontextprotocol" / "inspector-cli" / "build" / "cli.js"
    return ["node", "--import", _CRYPTO, str(script), "--cli", *arguments]


def everything(modules: Path) -> str:
    return str(modules / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js")


@contextmanager
def everything_over_http(modules: Path) -> Iterator[str]:
    """Address of server-everything, which serves streamable HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["node", "--import", _CRYPTO, everything(modules), "streamableHttp"]
    env = os.environ | {"PORT": str(port)}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert "listening" in said, said
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


def mcp_file(folder: Path, modules: Path, url: str) -> Path:
    """All of them; `files` may be read and written below `folder`/files. Skips where there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("@playwright/mcp has no browser here (missing: chromium)")
    (folder / "files").mkdir()
    files = str(modules / "@modelcontextprotocol" / "server-filesystem" / "dist" / "index.js")
    browser = [str(modules / "@playwright" / "mcp" / "cli.js"), "--headless", "--isolated"]
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    servers = {
        "everything": {"command": "node", "args": [everything(modules), "stdio"]},
        "everything-http": {"type": "http", "url": url},
        "files": {"command": "node", "args": [files, str(folder / "files")]},
        "browser": {"command": "node", "args": [*browser, *root, "--executable-path", chromium]},
    }
    path = folder / ".mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path
