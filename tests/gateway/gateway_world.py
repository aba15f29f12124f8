"""A whole gateway in this process, on a real database and real kernels, and the shop double in its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nbformat
from own_database import own_database as own_database

from demo.model.script import Script, save
from gateway.settings import Settings, load_settings

KEY, SECRET, CONTROL = "ck_0123456789abcdef", "cs_fedcba9876543210", "double-0123456789"
MODEL_KEY = "sk-model-0123456789"
#: One profile for all: one template.
ROLES = ["agent", "analyst", "operator"]


@dataclass(frozen=True)
class ShopProcess:
    """The shop double and its own controls."""

    url: str
    http: httpx.Client

    def state(self) -> dict[str, Any]:
        answer = self.http.get("/_double/state")
        answer.raise_for_status()
        state: dict[str, Any] = answer.json()
        return state

    def written(self) -> dict[str, Any]:
        """All that differs from its start."""
        answer = self.http.get("/_double/written")
        answer.raise_for_status()
        written: dict[str, Any] = answer.json()
        return written

    def reset(self) -> None:
        self.http.post("/_double/reset").raise_for_status()


@contextmanager
def running_shop() -> Iterator[ShopProcess]:
    keys = {"SHOP_CONSUMER_KEY": KEY, "SHOP_CONSUMER_SECRET": SECRET, "SHOP_CONTROL_TOKEN": CONTROL}
    command = [sys.executable, "-m", "demo.shop", "--port", "0"]
    with subprocess.Popen(command, env=os.environ | keys, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().rpartition(" ")[2].strip()
            headers = {"authorization": f"Bearer {CONTROL}"}
            with httpx.Client(base_url=url, headers=headers, trust_env=False) as http:
                yield ShopProcess(url, http)
        finally:
            process.terminate()


def settings_for(data_dir: Path, database_url: str, shop: ShopProcess | None = None, **more: Any) -> Settings:
    """Small and quick: few kernels, nothing preloaded, tenants `shop` and `other`."""
    store = {"url": shop.url, "consumer_key": KEY, "consumer_secret": SECRET} if shop else None
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "database_url": database_url,
        "openai_api_key": "sk-0123456789abcdef",
        "tenants": {"shop": {"shop": store}, "other": {}},
        "pool": {
            "provisioner": "local",
            "warm": 3,
            "maximum": 8,
            "preload": (),
            "profiles": {"agent": {"roles": ROLES}},
        },
        "cell": {"deadline_s": 20, "interrupt_grace_s": 1},
        "server": {"shutdown_grace_s": 2},
    }
    return load_settings(**(values | more))


def notebook_of(data_dir: Path, session: str, tenant: str = "shop") -> Any:
    """A session's transcript as Jupyter reads it, checked."""
    node = nbformat.read(data_dir / "transcripts" / tenant / f"{session}.ipynb", as_version=4)
    nbformat.validate(node)
    return node


@dataclass
class ServedGateway:
    """`omniops serve` in a process of its own."""

    process: subprocess.Popen[str]
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
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def served(data_dir: Path, env: dict[str, str], *options: str) -> Iterator[ServedGateway]:
    """A gateway that is ready; ended, if the test has not."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--data-dir", str(data_dir), *options]
    with (
        open(data_dir.with_name(f"{data_dir.name}.log"), "a") as log,
        subprocess.Popen(
            command, env=env, cwd=data_dir.parent, stdout=subprocess.PIPE, stderr=log, text=True
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


@contextmanager
def scripted_model(folder: Path, *scripts: Script) -> Iterator[dict[str, str]]:
    """A model behind a real endpoint; the environment that leads to it."""
    path = folder / "scripts.json"
    save(scripts, path)
    command = [sys.executable, "-m", "demo.model", "--scripts", str(path)]
    env = os.environ | {"MODEL_KEY": MODEL_KEY}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().rpartition(" ")[2].strip()
            yield {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": MODEL_KEY}
        finally:
            process.terminate()
