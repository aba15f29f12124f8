"""A whole gateway in this process, on a real database and real kernels, and the shop double in its own process."""

from __future__ import annotations

import os
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
from served_gateway import ROLES
from served_gateway import ServedGateway as ServedGateway
from served_gateway import environment as environment
from served_gateway import omniops as omniops
from served_gateway import served as served

from demo.model.script import Script, save
from gateway.settings import Settings, load_settings

KEY, SECRET, CONTROL = "ck_0123456789abcdef", "cs_fedcba9876543210", "double-0123456789"
MODEL_KEY = "sk-model-0123456789"


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
