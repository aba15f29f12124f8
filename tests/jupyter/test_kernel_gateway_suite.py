"""Jupyter Kernel Gateway's own tests, from its published source, run against a gateway of ours.

What does not apply is listed, with the reason; a test of theirs that is on neither list fails here.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from docker_daemon import shared_folder
from own_database import own_database
from served_gateway import environment, served

_SOURCE = "jupyter_kernel_gateway==3.0.1"
#: The token that one of the tests writes itself.
_TOKEN = "fake-token"

APPLY = frozenset(
    {
        "TestDefaults.test_startup",
        "TestDefaults.test_headless",
        "TestDefaults.test_options_without_auth_token",
        "TestDefaults.test_auth_token",
        "TestDefaults.test_max_kernels",
        "TestDefaults.test_get_api",
        "TestDefaults.test_get_kernelspecs",
        "TestDefaults.test_get_kernels",
        "TestDefaults.test_kernel_comm",
        "TestDefaults.test_crud_sessions",
        "TestDefaults.test_kernel_env_auth_token",
        "TestEnableDiscovery.test_enable_kernel_list",
    }
)
_THEIRS = "a setting of that server, which ours does not have"
_SEED = "kernels are not seeded from a notebook: profiles preload modules"
NOT = {
    "TestDefaults.test_check_origin": f"{_THEIRS}: no answer depends on Origin, for no cookie identifies anybody",
    "TestDefaults.test_config_bad_api_value": _THEIRS,
    "TestDefaults.test_cors_headers": _THEIRS,
    "TestDefaults.test_cors_options_headers": _THEIRS,
    "TestDefaults.test_no_discovery": "a list shows the caller's own tenant's only: there is nothing to forbid",
    "TestDefaults.test_json_errors": "begins with a list that is forbidden; errors are JSON in our own tests",
    "TestDefaults.test_kernel_env": "wants variables dropped without a word: ours refuses what it cannot set",
    "TestDefaults.test_get_swagger_yaml_spec": "our description is /v1/openapi.json",
    "TestDefaults.test_get_swagger_json_spec": "our description is /v1/openapi.json",
    "TestCustomDefaultKernel.test_default_kernel_name": _THEIRS,
    "TestForceKernel.test_force_kernel_name": _THEIRS,
    "TestPrespawnKernels.test_prespawn_count": "kernels that are ready belong to nobody and are not listed",
    "TestPrespawnKernels.test_prespawn_max_conflict": _THEIRS,
    "TestBaseURL.test_base_url": _THEIRS,
    "TestRelativeBaseURL.test_base_url": _THEIRS,
    "TestSeedURI.test_seed": _SEED,
    "TestRemoteSeedURI.test_seed": _SEED,
    "TestBadSeedURI.test_seed_error": _SEED,
    "TestBadSeedURI.test_seed_kernel_not_available": _SEED,
    "TestKernelLanguageSupport.test_seed_language_support": _SEED,
    "TestSessionApi.test_session_api": "calls that server's own classes",
}
#: Files that call that server's code without a server, or its other mode, which makes a notebook's cells HTTP routes.
OTHER_FILES = frozenset({"test_gatewayapp.py", "test_mixins.py", "test_notebook_http.py", "test_request_utils.py"})


pytestmark = pytest.mark.xdist_group("kernel_gateway_suite")


@pytest.fixture(scope="module")
def source() -> Path:
    """Their source, unpacked."""
    folder = shared_folder() / "kernel_gateway"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", _SOURCE]
    done = subprocess.run([*command, "--dest", folder], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


def test_every_file_of_theirs_is_run_or_named(source: Path) -> None:
    files = {path.name for path in (source / "tests").glob("test_*.py")}
    files |= {path.name for path in (source / "tests" / "notebook_http").glob("test_*.py")}
    assert files == OTHER_FILES | {"test_jupyter_websocket.py"}


def test_their_tests_pass(source: Path, postgres: str, tmp_path: Path) -> None:
    (source / "tests" / "conftest.py").write_text("")
    (tmp_path / "data").mkdir(mode=0o700)
    more = {"OMNIOPS_TENANTS__SHOP__TOKEN": _TOKEN, "OMNIOPS_POOL__TENANT_MAXIMUM": "1"}
    with own_database(postgres) as url, served(tmp_path / "data", environment(url, **more)) as gateway:
        report = tmp_path / "report.xml"
        names = [f"tests/test_jupyter_websocket.py::{name.replace('.', '::')}" for name in sorted(APPLY)]
        options = ["-p", "kernel_gateway_adapter", "-c", os.devnull, "--rootdir", str(source), "--timeout", "100"]
        options += ["-o", "asyncio_mode=auto", "--junit-xml", str(report)]
        env = os.environ | {
            "PYTHONPATH": f"{Path(__file__).parent}:{source}",
            "GATEWAY_URL": gateway.url,
            "GATEWAY_TOKEN": _TOKEN,
            "PYTEST_ADDOPTS": "",
        }
        command = [sys.executable, "-m", "pytest", *options, *names]
        done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, timeout=300, check=False)
        print(done.stdout[-6000:], done.stderr[-2000:])
        passed = {_name(case) for case in ElementTree.parse(report).iter("testcase") if len(case) == 0}
        assert passed == APPLY


def test_each_of_their_tests_is_on_one_list(source: Path) -> None:
    tree = ast.parse((source / "tests" / "test_jupyter_websocket.py").read_text())
    theirs = {
        f"{group.name}.{each.name}"
        for group in tree.body
        if isinstance(group, ast.ClassDef)
        for each in group.body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test")
    }
    assert theirs == APPLY | set(NOT)
    assert not APPLY & set(NOT)


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name', '').partition('[')[0]}"
