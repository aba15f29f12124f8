"""Cells are checked before they run: `docs/cells.md`. `checker` is for others; `worker` is a process of its own."""
