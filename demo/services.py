"""What the demo starts: the shop double, the scripted model (unless there is a real one) and the gateway."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from demo.gateway import Gateway
from demo.processes import Processes
from demo.serving import address, listen

TENANT = "demo"
POLICY = Path(__file__).with_name("policy.md")

#: Time for the gateway to come up, with its database made anew, seconds.
_START_S = 120.0
#: The direct way makes one request a call, and the longest task has some twenty.
_MAX_STEPS = 40


@dataclass(frozen=True)
class Model:
    """The model that the agent asks; scripted, unless the environment names a real one."""

    name: str
    url: str | None
    key: str = field(repr=False)
    scripted: bool


class Shop:
    """The shop double's own controls."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=20, trust_env=False
        )

    def close(self) -> None:
        self._http.close()

    def state(self) -> dict[str, Any]:
        answer = self._http.get("/_double/state")
        answer.raise_for_status()
        state: dict[str, Any] = orjson.loads(answer.content)
        return state

    def reset(self) -> None:
        self._http.post("/_double/reset").raise_for_status()


class Services:
    """The demo's services. `processes` ends them."""

    def __init__(self, processes: Processes, data_dir: Path) -> None:
        self._processes = processes
        self._data_dir = data_dir
        self._sockets = {"shop": _same_port_as_before(data_dir / "shop-port"), "model": listen()}
        self._key, self._secret, self._token = (secrets.token_hex(20) for _ in range(3))
        self.model = self._chosen_model()
        self.shop = Shop(address(self._sockets["shop"]), self._token)
        self.gateway = Gateway(f"http://127.0.0.1:{_free_port()}", self._token)

    def close(self) -> None:
        self.shop.close()
        self.gateway.close()
        for listener in self._sockets.values():
            listener.close()

    def start_shop(self) -> None:
        environment = _clean() | {
            "SHOP_CONSUMER_KEY": f"ck_{self._key}",
            "SHOP_CONSUMER_SECRET": f"cs_{self._secret}",
            "SHOP_CONTROL_TOKEN": self._token,
        }
        self._start_own("shop", ["-m", "demo.shop"], environment)

    def start_model(self, scripts: Path) -> None:
        environment = _clean() | {"MODEL_KEY": self.model.key}
        self._start_own("model", ["-m", "demo.model", "--scripts", str(scripts)], environment)

    def start_gateway(self) -> None:
        port = self.gateway.url.rpartition(":")[2]
        command = [*_omniops(), "serve", "--host", "127.0.0.1", "--port", port, "--token", self._token]
        self._processes.start("gateway", [*command, "--data-dir", str(self._data_dir)], self._configuration())

    def wait(self) -> None:
        """Until the gateway is ready. Raises ProcessFailed, GatewayFailed."""
        self.gateway.wait(_START_S, self._processes.check)

    def _start_own(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        listener = self._sockets[name]
        fd = listener.fileno()
        self._processes.start(name, [sys.executable, *command, "--fd", str(fd)], environment, fds=[fd])

    def _chosen_model(self) -> Model:
        key = os.environ.get("OPENAI_API_KEY")
        if key:
            name = os.environ.get("OMNIOPS_MODEL__NAME", "gpt-4.1")
            return Model(name, os.environ.get("OPENAI_BASE_URL"), key, scripted=False)
        return Model("scripted", f"{address(self._sockets['model'])}/v1", secrets.token_hex(20), scripted=True)

    def _configuration(self) -> dict[str, str]:
        """The gateway's whole configuration: the demo's own, and of the user's only what concerns the model."""
        empty = self._data_dir / "empty.toml"
        empty.touch()
        of_model = ("OMNIOPS_MODEL__",) if self.model.scripted else ("OMNIOPS_MODEL__", "OPENAI_")
        kept = {name: value for name, value in os.environ.items() if name.startswith(of_model)}
        tenant = f"OMNIOPS_TENANTS__{TENANT.upper()}"
        configuration = {
            **_clean(),
            **kept,
            "OMNIOPS_CONFIG": str(empty),
            "OMNIOPS_DATA_DIR": str(self._data_dir),
            "OMNIOPS_LOG_LEVEL": "warning",
            # alike on every machine, whatever images it has
            "OMNIOPS_POOL__PROVISIONER": "local",
            "OMNIOPS_AGENT__MAX_STEPS": str(_MAX_STEPS),
            f"{tenant}__SHOP__URL": address(self._sockets["shop"]),
            f"{tenant}__SHOP__CONSUMER_KEY": f"ck_{self._key}",
            f"{tenant}__SHOP__CONSUMER_SECRET": f"cs_{self._secret}",
            f"{tenant}__POLICY_FILE": str(POLICY),
            "OPENAI_API_KEY": self.model.key,
        }
        if self.model.url:
            configuration["OPENAI_BASE_URL"] = self.model.url
        if self.model.scripted:
            configuration["OMNIOPS_MODEL__NAME"] = "scripted"
        return configuration


def _clean() -> dict[str, str]:
    """This environment less what would change what the demo's processes do."""
    ours = ("OMNIOPS_", "OPENAI_")
    foreign = {"DATABASE_URL", "PYTHONPATH", "PYTHONHOME", "SUPABASE_URL", "SUPABASE_KEY"}
    kept = {name: v for name, v in os.environ.items() if not name.startswith(ours) and name not in foreign}
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(filter(None, (kept.get(name), "127.0.0.1", "localhost")))
    return kept


def _omniops() -> list[str]:
    script = Path(sys.executable).with_name("omniops")
    return [str(script)] if script.exists() else [sys.executable, "-m", "gateway.cli"]


def _same_port_as_before(note: Path) -> socket.socket:
    """A listening socket, if possible where the last run had it, so that products keep their addresses."""
    with contextlib.suppress(OSError, ValueError):
        return listen(int(note.read_text()))
    listener = listen()
    note.write_text(str(listener.getsockname()[1]))
    return listener


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
