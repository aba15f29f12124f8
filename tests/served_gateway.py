"""`omniops serve` in a process of its own, and `omniops` beside it: forked, to spare their imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import warm_process

#: One profile for all: one template.
ROLES = ["agent", "analyst", "operator"]


@dataclass
class ServedGateway:
    """`omniops serve` in a process of its own."""

    process: warm_process.WarmProcess
    url: str
    token: str
    printed: str
    data_dir: Path

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def stop(self) -> int:
        """As a service manager does; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def environment(database_url: str = "", **more: str) -> dict[str, str]:
    """A clean environment for the product's programs; small and quick, tenants `shop` and `other`."""
    ours = ("OMNIOPS_", "OPENAI_", "DATABASE_URL", "CI")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    settings = {
        "DATABASE_URL": database_url,
        "OMNIOPS_POOL__PROVISIONER": "local",
        "OMNIOPS_POOL__WARM": "1",
        "OMNIOPS_POOL__PRELOAD": "[]",
        "OMNIOPS_POOL__PROFILES": json.dumps({"agent": {"roles": ROLES}}),
        "OMNIOPS_SERVER__HEARTBEAT_S": "0.2",
        "OMNIOPS_SERVER__SHUTDOWN_GRACE_S": "2",
        "OMNIOPS_SERVER__MAX_REQUEST_MB": "1",
        "OMNIOPS_TENANTS__SHOP__TOKEN": "the-shops-own-token",
        "OMNIOPS_TENANTS__OTHER__TOKEN": "the-others-own-token",
    }
    return kept | {name: value for name, value in (settings | more).items() if value}


def omniops(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    return warm_process.run("gateway.cli:main", *arguments, env=env, cwd=cwd)


@contextmanager
def served(data_dir: Path, env: dict[str, str], *options: str) -> Iterator[ServedGateway]:
    """A gateway that is ready; ended, if the test has not."""
    command = ("serve", "--port", "0", "--data-dir", str(data_dir), *options)
    with (
        open(data_dir.with_name(f"{data_dir.name}.log"), "a") as log,
        warm_process.start(
            "gateway.cli:main", *command, env=env, cwd=data_dir.parent, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            printed = ""
            while "Stop it" not in printed:
                line = process.stdout.readline()
                assert line, f"the gateway did not start: {Path(log.name).read_text()}"
                printed += line
            url, _, token = printed.partition("http://")[2].split()[0].partition("/?token=")
            yield ServedGateway(process, f"http://{url}", token, printed, data_dir)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
