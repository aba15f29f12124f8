"""The IPython shell of a forked kernel: built without touching the disk, its history in memory."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.formatters import DisplayFormatter
from IPython.core.history import HistoryManager
from IPython.core.profiledir import ProfileDir
from IPython.lib.pretty import _type_pprinters
from traitlets import observe

#: Cells that are run before the fork so that what they need is loaded: an expression, display of common values, an
#: error with its traceback, an import, `await`, a magic, a class.
_REHEARSAL = (
    "1 + 1",
    "{'a': [1, 2.5, 'x', None], 'b': ({1}, True)}",
    "1 / 0",
    "import math\nmath.pi",
    "async def _f(): return 2\nawait _f()",
    "%pwd",
    "class _C: pass\n_C()",
    "print('x')\nfor _i in range(2): pass",
)


class UnwrittenProfile(ProfileDir):
    """A profile that makes its folder only, when it gets a location, and no folders in it."""

    def _mkdir(self, path: str, mode: int | None = None) -> bool:
        return False


class QuickFormatter(DisplayFormatter):
    """Plain numbers, text and None have one representation: do not ask twelve formatters for it."""

    _quick = (int, bool, str, type(None))

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        kind = type(obj)
        if kind in self._quick and include is None and exclude is None and self._is_stock(kind, obj):
            return {"text/plain": repr(obj)}, {}
        bundle: tuple[dict[str, Any], dict[str, Any]] = super().format(obj, include, exclude)
        return bundle

    def _is_stock(self, kind: type, obj: object) -> bool:
        """Whether nobody registered a printer of their own for this type or object."""
        plain = self.formatters["text/plain"]
        if not plain.enabled or plain.type_printers.get(kind) is not _type_pprinters.get(kind):
            return False
        others = [f for f in (*self.formatters.values(), self.ipython_display_formatter, self.mimebundle_formatter)]
        return not any(kind in f.type_printers for f in others if f is not plain) and not any(
            id(obj) in f.singleton_printers for f in others if f is not plain
        )


class Shell(ZMQInteractiveShell):
    """`ZMQInteractiveShell` in two steps: what can be made before the fork, and `settle` after it."""

    configurables: list[Any]
    profile_dir: ProfileDir
    payload_manager: Any
    extension_manager: Any
    displayhook: Any
    display_pub: Any
    _transformed: tuple[str, str] | None = None

    def init_ipython_dir(self, ipython_dir: str | None) -> None:
        """Known only in the child."""

    @observe("ipython_dir")
    def _ipython_dir_changed(self, change: Any) -> None:
        """The folder is made by those who write to it."""

    def init_history(self) -> None:
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False, hist_file=":memory:")

    def init_display_formatter(self) -> None:
        self.display_formatter = QuickFormatter(parent=self)
        self.configurables.append(self.display_formatter)

    def transform_cell(self, raw_cell: str) -> str:
        """IPython's transformation, once per cell: ipykernel asks for it, and IPython asks again."""
        if self._transformed is None or self._transformed[0] != raw_cell:
            self._transformed = raw_cell, super().transform_cell(raw_cell)
        return self._transformed[1]

    def forget_transformed(self) -> None:
        """Before a cell: what an earlier one became says nothing about this one, transformers may have changed."""
        self._transformed = None

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """IPython would keep all that every cell ever prints, for `%notebook`; a kernel's memory is limited."""
        yield

    def system_piped(self, cmd: str) -> None:
        """`!command`, its output on descriptors 1 and 2 (a sandbox has no terminals)."""
        sys.stdout.flush()
        self.user_ns["_exit_code"] = subprocess.call(self.var_expand(cmd, depth=1), shell=True)  # noqa: S602

    system = system_piped

    def settle(self, home: Path) -> None:
        """In the child: this kernel's own history and folders."""
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=True, hist_file=":memory:")
        self.configurables.append(self.history_manager)
        self.init_user_ns()
        self.ipython_dir = str(home / ".ipython")
        with contextlib.suppress(OSError):  # a home that cannot be written: magics that store something will say so
            self.profile_dir.location = str(home / ".ipython" / "profile_default")

    def rehearse(self, extra: Sequence[str] = ()) -> None:
        """Before the fork: run everything a first cell would load, then forget it."""
        names = set(self.user_ns)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for code in (*_REHEARSAL, *extra):
                _run_now(self.run_cell_async(code, store_history=False, transformed_cell=self.transform_cell(code)))
            list(self.complete("os.pa", "import os; os.pa", 16))
            self.object_inspect_mime("str", detail_level=0)
            self.user_expressions({"a": "1 + 1"})
            self.payload_manager.clear_payload()
        self.reset(new_session=False)
        for name in set(self.user_ns) - names:
            del self.user_ns[name]
        self.execution_count = 1
        self._last_traceback = None
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            sys.__dict__.pop(name, None)


def _run_now(coroutine: Any) -> None:
    """Run a coroutine that never waits for anything, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a rehearsal cell waited for the event loop, which does not exist before the fork")
