"""The page on the Python client: its examples, in their order, against a gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_database import own_database
from served_gateway import environment, served

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


@pytest.fixture(scope="module")
def gateway(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    data = tmp_path_factory.mktemp("page") / "data"
    data.mkdir(mode=0o700)
    with own_database(postgres) as url:
        env = environment(url, OMNIOPS_TENANTS__ACME__TOKEN="the-token-of-acme")
        with served(data, env) as gateway:
            yield gateway.url, gateway.token


def test_the_examples_run(
    gateway: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, token = gateway
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMNIOPS_CLIENT__URL", url)
    monkeypatch.setenv("OMNIOPS_CLIENT__TOKEN", token)
    text = PAGE.read_text()
    blocks = [(found.start(), found.group(1)) for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)]
    assert len(blocks) >= 9
    namespace: dict[str, object] = {}
    for start, code in blocks:
        code = code.replace('"http://127.0.0.1:8765", "the-token"', f'"{url}", "{token}"')
        padding = "\n" * (text[:start].count("\n") + 1)  # an error names the line of the page
        exec(compile(padding + code, str(PAGE), "exec"), namespace)
    namespace["client"].close()  # type: ignore[attr-defined]
    printed = capsys.readouterr().out
    for shown in ("as it goes", "0\n1\n2\n", "ZeroDivisionError: division by zero", "has ended", "hello"):
        assert shown in printed
