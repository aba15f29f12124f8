"""`omniops kernelspec`: what it writes is found and run by Jupyter's own programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from gateway_world import environment, omniops


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A user with a home of their own; one profile more than the product has."""
    kept = {name: value for name, value in environment().items() if not name.startswith("JUPYTER")}
    profile = {"preload": [], "memory_mb": 200, "display_name": "Tiny"}
    return kept | {"HOME": str(tmp_path), "OMNIOPS_POOL__PROFILES": json.dumps({"tiny": profile})}


def spec_of(folder: Path) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((folder / "kernel.json").read_text())
    return spec


def test_profiles_become_kernelspecs_and_go_again(tmp_path: Path, env: dict[str, str]) -> None:
    done = omniops("kernelspec", "install", "--user", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kernels = tmp_path / ".local" / "share" / "jupyter" / "kernels"
    assert {path.name for path in kernels.iterdir()} == {
        f"omniops-{name}" for name in ("agent", "analyst", "stock", "tiny")
    }
    assert "Kernels run in: namespaces" in done.stdout
    tiny = spec_of(kernels / "omniops-tiny")
    assert tiny["display_name"] == "Tiny"
    told = tiny["metadata"]["kernel_provisioner"]
    assert told["provisioner_name"] == "omniops-local"
    assert (told["config"]["memory_mb"], told["config"]["preload"]) == (200, [])
    assert "duckdb" in spec_of(kernels / "omniops-analyst")["metadata"]["kernel_provisioner"]["config"]["preload"]
    listed = omniops("kernelspec", "list", env=env, cwd=tmp_path)
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        [f"omniops-{name}", "omniops-local"] for name in ("agent", "analyst", "stock", "tiny")
    ]
    assert omniops("kernelspec", "remove", "omniops-tiny", env=env, cwd=tmp_path).returncode == 0
    assert not (kernels / "omniops-tiny").exists()
    assert omniops("kernelspec", "remove", env=env, cwd=tmp_path).returncode == 0
    assert list(kernels.iterdir()) == []


def test_a_written_kernelspec_runs_a_notebook(tmp_path: Path, env: dict[str, str]) -> None:
    """Without the configuration that it came from, and without a gateway."""
    done = omniops("kernelspec", "install", "--prefix", "here", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_code_cell("import os; print(os.getcwd())")]
    nbformat.write(node, tmp_path / "in.ipynb")
    plain = {name: value for name, value in env.items() if not name.startswith("OMNIOPS_")}
    ran = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--kernel_name=omniops-tiny", "--inplace", "in.ipynb"],
        cwd=tmp_path,
        env=plain | {"JUPYTER_PATH": str(tmp_path / "here" / "share" / "jupyter")},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    assert nbformat.read(tmp_path / "in.ipynb", as_version=4).cells[0].outputs[0].text == "/home/kernel\n"


def test_only_our_own_are_removed(tmp_path: Path, env: dict[str, str]) -> None:
    done = omniops("kernelspec", "remove", "python3", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert "There is no kernelspec 'python3' of ours. There are: none." in done.stderr


def test_one_place_at_a_time(tmp_path: Path, env: dict[str, str]) -> None:
    done = omniops("kernelspec", "install", "--user", "--sys-prefix", env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert "one at most" in done.stderr


def test_what_cannot_be_had_is_not_written(tmp_path: Path, env: dict[str, str]) -> None:
    broken = {"OMNIOPS_POOL__PROVISIONER": "docker", "OMNIOPS_DOCKER__HOST": f"unix://{tmp_path}/nobody.sock"}
    done = omniops("kernelspec", "install", "--user", env=env | broken, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"omniops: no Docker daemon answers at unix://{tmp_path}/nobody.sock")
    assert not (tmp_path / ".local").exists()
