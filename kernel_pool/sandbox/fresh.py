"""What a forked process must not share with its siblings or its template: random state, environment, signals."""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import signal
import sys
import tempfile

#: Kept from the template's environment, which the launcher made; everything else is dropped.
_KEEP = (
    *("PATH", "LANG", "LC_ALL", "TZ", "SHELL", "TMPDIR", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("ARROW_DEFAULT_MEMORY_POOL", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "JE_ARROW_MALLOC_CONF"),
)

#: What the stock kernel sets for the programs that a cell starts, and its matplotlib backend.
_KERNEL = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "xterm-color",
    "CLICOLOR": "1",
    "FORCE_COLOR": "1",
    "CLICOLOR_FORCE": "1",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


#: What a template may handle in its own way and a kernel must not.
TEMPLATE_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


def reseed() -> None:
    """Give this process random state of its own in every generator that the template has loaded.

    Process ids do not tell siblings apart: each is process 1 of its own namespace.
    """
    random.seed()
    tempfile._name_sequence = None  # type: ignore[attr-defined]  # made anew at its next use
    tempfile.tempdir = None
    if "numpy.random" in sys.modules:
        importlib.import_module("numpy.random").seed()
    if "ssl" in sys.modules:
        importlib.import_module("ssl").RAND_add(os.urandom(48), 48.0)
    sqlite = sys.modules.get("_sqlite3")
    if sqlite is not None:
        # "the PRNG is reset": its next number comes from the system's; it would see a fork by the process id only
        ctypes.CDLL(getattr(sqlite, "__file__", None)).sqlite3_randomness(0, None)
    # with which processes of one program know each other
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        process.current_process().authkey = os.urandom(32)
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        vars(uuid).update(_node=None, _last_timestamp=None)


def environment(home: str) -> None:
    """Replace the environment by that of a kernel whose home folder is `home`."""
    kept = {name: os.environ[name] for name in _KEEP if name in os.environ}
    values = {**_KERNEL, **kept, "HOME": home, "USER": "kernel", "LOGNAME": "kernel"}
    python = os.path.dirname(sys.executable)
    if python not in values["PATH"].split(":"):
        values["PATH"] = f"{python}:{values['PATH']}"
    os.environ.clear()
    os.environ.update(values)


def import_from_here() -> None:
    """Let cells import modules that they wrote: the working folder, after the standard library."""
    if "" not in sys.path:
        packages = (i for i, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages")))
        sys.path.insert(next(packages, len(sys.path)), "")
