"""Every command and code block of README and docs, run as a reader would run it.

Only what a reader has to put in is put in: the shop's address and keys, the model's address and key.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.model.script import Call, Script, Step, save

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)

MAKE = re.compile(r"^make (\w+)", re.M)
QUESTION = re.search(r'chat --tenant acme "([^"]+)"', (ROOT / "README.md").read_text())


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    return [
        Block(page, found[1], found[2])
        for page in PAGES
        for found in _FENCE.finditer(page.read_text())
        if found[1] == language
    ]


def shell(containing: str) -> str:
    """The one shell block of the README that holds the words."""
    found = [block.text for block in blocks("sh") if containing in block.text and block.page.name == "README.md"]
    assert len(found) == 1, f"{len(found)} shell blocks hold {containing!r}"
    return found[0]


@contextmanager
def process(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A process of its own group, ended at the end."""
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, start_new_session=True, **options) as started:  # type: ignore[call-overload]
        try:
            yield started
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGTERM)
                started.wait(timeout=30)


def first_address(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    for line in started.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    raise AssertionError("it ended without telling its address")


@dataclass(frozen=True)
class Reader:
    """A reader's folder with the project's virtual environment in it, and the environment of their shell."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", script],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """After the README's configuration blocks, with its `omniops serve` running."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "policy.md").write_text("Be kind.\n")
    assert QUESTION is not None
    step = Step(
        code="from servers.catalog import search_products\nprint(search_products(query='t-shirt')[0]['name'])",
        calls=(Call("catalog.search_products", {"query": "t-shirt"}),),
    )
    save([Script("readme", QUESTION[1], (step,), "Yes, we do.")], folder / "scripts.json")
    key, secret, model_key = (secrets.token_hex(8) for _ in range(3))
    base = {name: value for name, value in os.environ.items() if not name.startswith(("OMNIOPS_", "OPENAI_"))}
    base.pop("DATABASE_URL", None)
    with ExitStack() as stack:
        keys = {"SHOP_CONSUMER_KEY": f"ck_{key}", "SHOP_CONSUMER_SECRET": f"cs_{secret}", "SHOP_CONTROL_TOKEN": key}
        shop = stack.enter_context(process([sys.executable, "-m", "demo.shop"], env=base | keys, cwd=ROOT))
        scripts = ["--scripts", str(folder / "scripts.json")]
        model = stack.enter_context(
            process([sys.executable, "-m", "demo.model", *scripts], env=base | {"MODEL_KEY": model_key}, cwd=ROOT)
        )
        toml = next(block.text for block in blocks("toml") if block.page.name == "README.md")
        toml = toml.replace("https://shop.example.com", first_address(shop))
        (folder / "omniops.toml").write_text(toml.replace("ck_...", f"ck_{key}").replace("cs_...", f"cs_{secret}"))
        exports = shell("OPENAI_BASE_URL").replace("https://api.openai.com", first_address(model))
        exports = exports.replace("sk-...", model_key).replace("gpt-4.1", "scripted")
        environment = base | {"OMNIOPS_SERVER__PORT": "0", "OMNIOPS_POOL__PROVISIONER": "local"}
        gateway = stack.enter_context(
            process(["bash", "-euc", exports + shell("omniops serve")], env=environment, cwd=folder)
        )
        first_address(gateway)
        yield Reader(folder, environment)


def test_the_make_targets_that_are_named_exist() -> None:
    named = {target for block in blocks("sh") for target in MAKE.findall(block.text)}
    assert {"demo", "test"} <= named
    for target in sorted(named):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_commands_for_daily_use_work(reader: Reader) -> None:
    done = reader.run(shell("omniops chat"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "T-Shirt" in done.stdout
    assert "Yes, we do." in done.stdout
    assert len(list((reader.folder / ".omniops" / "transcripts" / "acme").glob("*.ipynb"))) == 1


def test_the_database_setting_is_understood(reader: Reader) -> None:
    check = '"$PWD"/.venv/bin/python -c "from gateway.settings import load_settings as s; assert s().database_url"'
    done = reader.run(shell("DATABASE_URL") + check)
    assert done.returncode == 0, done.stderr


def test_the_doctor_finds_that_the_readers_machine_will_do(reader: Reader) -> None:
    done = reader.run(shell("omniops doctor"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seccomp filter" in done.stdout


def test_every_shell_block_is_run_here() -> None:
    # that with docker is run by tests/docker/test_docker_commands.py, those of the pages on kernels, pool, tools and
    # approvals by test_kernels_page.py, test_pool_page.py, test_tools_page.py and test_approvals_served.py,
    # that on credentials by test_cli_client.py, that on MCP servers by test_mcp_page.py, those on
    # Jupyter's clients by test_jupyter_page.py, that on transcripts by test_transcripts_page.py
    run_here = (
        "kernel_pool.pool",
        "make demo",
        "omniops serve",
        "omniops chat",
        "DATABASE_URL",
        "OPENAI_BASE_URL",
        "docker/build-image",
        "omniops tools",
        "omniops approvals",
        "omniops credentials",
        "omniops transcripts",
        "omniops mcp",
        "--gateway-url",
        "/api/kernels",
        "omniops kernelspec",
        "omniops doctor",
        "/readyz",  # test_operations_page.py
        "/v1/chat/completions",  # test_chat_api_page.py
        "omniops keys",  # test_identity_page.py
        "omniops audit",
        "omniops sync",  # test_sync_page.py
        "omniops ingest",  # test_scraping_page.py
        "omniops report",  # test_reports_page.py
        "omniops gdpr",  # test_gdpr_page.py
        "make bench ONLY=tokens",  # test_savings_page.py measures the workloads in this process
        "omniops savings",
        "omniops schedules",  # test_schedules_page.py
        "omniops load",
        "@modelcontextprotocol/inspector",  # test_mcp_server_page.py
    )
    left = [block for block in blocks("sh") if not any(words in block.text for words in run_here)]
    assert left == []
