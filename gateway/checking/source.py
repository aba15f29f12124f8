"""A cell's text as Python: what IPython adds to the language is rewritten by IPython itself, and nothing is run."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache

from IPython.core.inputtransformer2 import TransformerManager

#: Cell magics whose body is Python that runs in the session's namespace.
_PYTHON_MAGIC = re.compile(r"\s*%%(time|timeit|capture|prun)\b[^\n]*(?=\n|$)")
_FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


class NoPython(Exception):
    """The text is no Python. `line` is from 1, 0 where it is not known; `source` that line."""

    def __init__(self, message: str, line: int, source: str) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.source = source


@dataclass(frozen=True)
class Source:
    """A cell as plain Python. Its lines are the cell's own; where a magic went over several, later ones move up."""

    text: str
    tree: ast.Module
    #: It has magics, whose doings are not seen.
    magic: bool


@lru_cache(maxsize=256)
def read(code: str) -> Source:
    """Raises NoPython; RecursionError and MemoryError for what is nested without sense."""
    found = _PYTHON_MAGIC.match(code)
    body = "\n" * code[: found.end()].count("\n") + code[found.end() :] if found else code
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like are the cell's own affair
        try:
            text = TransformerManager().transform_cell(body)  # type: ignore[no-untyped-call]
            tree = compile(text, "<cell>", "exec", _FLAGS, dont_inherit=True)
        except SyntaxError as error:
            raise NoPython(error.msg, error.lineno or 0, (error.text or "").strip()) from None
        except ValueError as error:
            raise NoPython(str(error), 0, "") from None
    return Source(text, tree, magic=found is not None or "get_ipython()" in text)
