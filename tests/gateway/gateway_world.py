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

from gateway.settings import Settings, load_settings

KEY, SECRET, CONTROL = "ck_0123456789abcdef", "cs_fedcba9876543210", "double-0123456789"


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
        "pool": {"warm": 3, "maximum": 8, "preload": ()},
        "cell": {"deadline_s": 20, "interrupt_grace_s": 1},
        "server": {"shutdown_grace_s": 2},
    }
    return load_settings(**(values | more))
