"""Environment and files that a lease brings: put into a kernel that is warm already, all of it or the lease fails.

What Python and its libraries read when they start cannot be changed any more in a warm kernel, so it is refused.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kernel_pool.kernel import Kernel
from kernel_pool.types import BadInjection, KernelGone, KernelPoolError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")
_PART = re.compile(r"[^/\0]{1,255}\Z")
#: Read once, before the kernel was leased.
_TOO_LATE = ("PYTHON", "IPYTHON", "LD_", "MALLOC_", "OMP_", "OPENBLAS_", "MKL_", "ARROW_", "JUPYTER_")
_MAX_VARIABLES, _MAX_ENV_BYTES = 256, 64 * 1024
_MAX_FILES, _MAX_FILE_BYTES, _MAX_PATH = 256, 8 * 1024 * 1024, 1024

#: One expression, so that it leaves no name behind; the data comes as a literal of JSON.
_CODE = "exec({program!r}, {{'data': {data!r}}})"
_PROGRAM = """
import base64, json, os
data = json.loads(data)
for path, content in data["files"].items():
    if folder := os.path.dirname(path):
        os.makedirs(folder, exist_ok=True)
    with open(path, "wb") as file:
        file.write(base64.b64decode(content))
os.environ.update(data["env"])
"""


@dataclass(frozen=True)
class Injection:
    """Checked variables and files; paths are relative to the kernel's home."""

    env: Mapping[str, str]
    files: Mapping[str, bytes]

    @classmethod
    def checked(cls, env: Mapping[str, str] | None, files: Mapping[str, bytes] | None) -> Injection:
        """Raises BadInjection, naming what cannot be."""
        env, files = dict(env or {}), dict(files or {})
        _check_env(env)
        _check_files(files)
        return cls(env, files)

    def __bool__(self) -> bool:
        return bool(self.env or self.files)

    async def into(self, kernel: Kernel, timeout_s: float) -> None:
        """Put it there, without a trace in history or count. Raises BadInjection, KernelGone or KernelPoolError.

        After an error the kernel may have a part of it: it must not be used.
        """
        files = {path: base64.b64encode(content).decode() for path, content in self.files.items()}
        data = json.dumps({"env": dict(self.env), "files": files})
        content = {
            "code": _CODE.format(program=_PROGRAM, data=data),
            "silent": True,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        try:
            async with asyncio.timeout(timeout_s):
                reply = (await kernel.channels.request("shell", "execute_request", content)).content
        except TimeoutError:
            raise BadInjection(f"the kernel did not take the lease's files and variables in {timeout_s:g} s") from None
        except KernelPoolError:
            if kernel.exited.done():
                raise KernelGone(kernel.exited.result()) from None
            raise
        if reply.get("status") != "ok":
            why = f"{reply.get('ename')}: {reply.get('evalue')}"
            raise BadInjection(f"the lease's files and variables could not be put into the kernel: {why[:500]}")


def _check_env(env: Mapping[str, str]) -> None:
    if len(env) > _MAX_VARIABLES:
        raise BadInjection(f"a lease may bring {_MAX_VARIABLES} variables, not {len(env)}")
    size = 0
    for name, value in env.items():
        if not _NAME.match(name):
            raise BadInjection(f"{name[:64]!r} cannot be an environment variable: letters, digits and '_' only")
        if name.startswith(_TOO_LATE):
            raise BadInjection(
                f"variable {name} has no effect in a kernel that is warm already: it is read at the start. "
                "Give the kernel a profile of its own, or set what it stands for in a cell."
            )
        if "\0" in value:
            raise BadInjection(f"the value of variable {name} holds a NUL character")
        size += len(name) + len(value.encode(errors="surrogateescape"))
    if size > _MAX_ENV_BYTES:
        raise BadInjection(f"a lease may bring {_MAX_ENV_BYTES} bytes of variables, not {size}")


def _check_files(files: Mapping[str, bytes]) -> None:
    if len(files) > _MAX_FILES:
        raise BadInjection(f"a lease may bring {_MAX_FILES} files, not {len(files)}")
    for path in files:
        parts = path.split("/")
        if len(path) > _MAX_PATH or any(part in (".", "..") or not _PART.match(part) for part in parts):
            raise BadInjection(f"{path[:200]!r} cannot be a file's path: relative to the kernel's home, without '..'")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                raise BadInjection(f"{'/'.join(parts[:end])!r} is to be a file and a folder")
    size = sum(map(len, files.values()))
    if size > _MAX_FILE_BYTES:
        raise BadInjection(f"a lease may bring {_MAX_FILE_BYTES} bytes of files, not {size}")
