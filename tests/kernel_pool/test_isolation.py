"""What a machine offers is found out by trying, and what is missing is named with what to do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kernel_pool.isolation import IsolationReport, probe
from kernel_pool.seccomp import compile_filter
from kernel_pool.types import IsolationUnavailable

#: In a user namespace of its own the switch can be turned without touching the machine's.
CLOSED = """
from kernel_pool.isolation import probe
from kernel_pool.types import IsolationUnavailable
open('/proc/sys/user/max_user_namespaces', 'w').write('0')
report = probe()
print(report.available, report.summary())
try:
    report.require()
except IsolationUnavailable as error:
    print(error)
"""


def test_this_machine_offers_the_full_sandbox() -> None:
    report = probe()
    assert report.available, report
    report.require()
    assert report.mode == ("root" if os.getuid() == 0 else "user")
    assert report.seccomp_instructions > 100
    assert "read-only root" in report.summary()


def test_closed_user_namespaces_are_named_with_the_command_that_opens_them() -> None:
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", CLOSED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("False no isolation"), done.stderr
    assert "sysctl -w user.max_user_namespaces=15000" in done.stdout
    assert "Kernels are never started without isolation." in done.stdout


def test_a_report_with_a_problem_refuses() -> None:
    report = IsolationReport("user", "6.1", 0, "libseccomp could not be loaded", "Install it.")
    with pytest.raises(IsolationUnavailable, match=r"libseccomp could not be loaded\. Install it\."):
        report.require()


def test_the_filter_is_whole_instructions_and_the_same_each_time() -> None:
    program = compile_filter()
    assert len(program) % 8 == 0
    compile_filter.cache_clear()
    assert compile_filter() == program
