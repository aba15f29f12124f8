"""The library that VS Code and JupyterLab speak to Jupyter servers with, from Node.js, against a gateway."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from npm_servers import npm_folder
from own_database import own_database
from served_gateway import environment, served

_SCRIPT = Path(__file__).with_name("services_client.cjs")


def test_what_vs_code_does_with_an_existing_server(postgres: str, tmp_path: Path) -> None:
    env = os.environ | {"NODE_PATH": str(npm_folder())}
    (tmp_path / "data").mkdir(mode=0o700)
    with own_database(postgres) as url, served(tmp_path / "data", environment(url)) as gateway:
        command = ["node", _SCRIPT, f"{gateway.url}/", "the-shops-own-token"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "autorestarting" not in done.stderr  # they would say that the kernel has died
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("result") == {
        "text": "out\n42",
        "types": ["status", "execute_input", "stream", "execute_result", "status"],
        "status": "ok",
    }
    assert found == {
        "default": "python3",
        "language": "python",
        "completion": ["bit_length"],
        "inspection": True,
        "interrupted": "error",
        "kept": "42",
        "forgotten": "False",
        "reconnected": "0\n1\n2\n3\n4\n",
        "running": ["folder/notebook-jvsc-1.ipynb"],
        "renamed": "folder/renamed.ipynb",
        "left": 0,
    }
