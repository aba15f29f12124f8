"""How far a long call is, as one line of the cell's output that each step writes over."""

from __future__ import annotations

import sys


class Shown:
    """The line of one call: `with Shown() as shown`. Nothing is written where no step comes."""

    def __init__(self) -> None:
        self._width = 0

    def __enter__(self) -> Shown:
        return self

    def step(self, text: str) -> None:
        sys.stdout.write(f"\r{text:<{self._width}}")
        sys.stdout.flush()
        self._width = len(text)

    def __exit__(self, *_: object) -> None:
        if self._width:
            sys.stdout.write("\n")
            sys.stdout.flush()
