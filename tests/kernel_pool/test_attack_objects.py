"""Objects made to hurt who looks at them: in the kernel they may do anything, outside nothing of them runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from attack import Arena

import gateway
import kernel_pool

HOSTILE = {
    "endless-repr": "class X:\n    def __repr__(self): return 'x' * 10**8\nX()",
    "recursion": "class X:\n    def __repr__(self): return repr(self)\nX()",
    "repr-that-exits": "class X:\n    def __repr__(self): raise SystemExit\nX()",
    "repr-that-is-none": "class X:\n    def __repr__(self): return None\nX()",
    "everything-raises": "class X:\n    def __getattribute__(self, name): raise MemoryError\nX()",
    "lies-about-class": "class X:\n    __class__ = property(lambda self: 1 / 0)\nX()",
    "mime-bomb": "class X:\n    def _repr_mimebundle_(self, **_):\n"
    "        return {str(i): 'x' * 1000 for i in range(10**5)}\nX()",
    "html-that-raises": "class X:\n    def _repr_html_(self): raise KeyboardInterrupt\nX()",
    "contains-itself": "x = []; x.append(x); y = {}; y[1] = y; (x, y)",
    "deep": "x = []\nfor _ in range(100_000): x = [x]\nx",
    "error-with-a-hostile-text": "class E(Exception):\n    def __str__(self): return 'e' * 10**8\nraise E",
    "endless-chain-of-errors": "e = ValueError()\nfor _ in range(10_000):\n    n = ValueError()\n"
    "    n.__cause__ = e; e = n\nraise e",
    "reduce": "class X:\n    def __reduce__(self): return (os.system, ('touch /tmp/x',))\nX()",
    "terminal": "print('\\x1b]0;title\\x07\\x1b[2J\\x1b]52;c;aGVsbG8=\\x07\\x9b31m', '\\u202e', '\\0' * 100)",
    "surrogates": "print('\\ud800' * 1000); '\\udfff'",
    "hostile-namespace": "class X:\n    def __len__(self): return 2**63\n"
    "    shape = property(lambda self: 1 / 0)\nx = X()",
    "displayhook-gone": "sys.displayhook = None; get_ipython().displayhook = None; 5",
    "no-excepthook": "get_ipython().showtraceback = None; 1 / 0",
}


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("object", HOSTILE)
async def test_a_hostile_object_costs_its_own_cell_at_most(arena: Arena, object: str) -> None:
    async with arena.attacker() as kernel:
        result = await kernel.execute(HOSTILE[object], deadline_s=20)
        assert result.status in ("ok", "error", "interrupted", "dead")
        assert sum(len(str(item)) for item in result.outputs) < 4 * 1024 * 1024
        if result.error is not None:
            assert len(result.error.value) <= 64 * 1024


def test_nothing_outside_unpickles_or_evaluates() -> None:
    """What a kernel says is data: no pickle, marshal, shelve, yaml, eval or exec on the gateway's side."""
    found = []
    inside = Path(kernel_pool.__file__).parent / "sandbox"
    for part in (gateway, kernel_pool):
        for path in Path(part.__file__ or "").parent.rglob("*.py"):
            if inside in path.parents:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    names.append(f"{node.func.id}()")
                bad = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml", "joblib", "eval()", "exec()"}
                found += [f"{path.name}: {name}" for name in names if name in bad]
    assert found == []
