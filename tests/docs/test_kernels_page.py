"""docs/kernels.md: its commands and its kernelspec, as a reader runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder with a notebook in it. Their environment stays as it is: kernelspecs go to their own home."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_code_cell("import pandas; print(len(pandas.DataFrame({'a': [1, 2]})))")]
    nbformat.write(node, tmp_path / "report.ipynb")
    return tmp_path


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMNIOPS_", "JUPYTER"))}
    kept.pop("DATABASE_URL", None)
    environment = kept | {"HOME": str(folder), "OMNIOPS_POOL__PROVISIONER": "local"}
    return subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


def output(path: Path) -> str:
    return str(nbformat.read(path, as_version=4).cells[0].outputs[0].text)


@pytest.mark.timeout(300)
def test_the_commands(folder: Path) -> None:
    commands = block("sh")
    assert "kernelspec install\n" in commands
    done = run(folder, commands.replace("kernelspec install", "kernelspec install --user"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "omniops-analyst" in done.stdout
    assert output(folder / "report.ipynb") == "2\n"
    assert output(folder / "filled.ipynb") == "2\n"
    assert not list((folder / ".local" / "share" / "jupyter" / "kernels").iterdir())


def test_the_kernelspec(folder: Path) -> None:
    kernels = folder / ".local" / "share" / "jupyter" / "kernels" / "mine"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps(json.loads(block("json"))))
    done = run(folder, ".venv/bin/jupyter execute --kernel_name=mine --inplace report.ipynb")
    assert done.returncode == 0, done.stderr
    assert output(folder / "report.ipynb") == "2\n"
