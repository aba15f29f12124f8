"""Desks for Jupyter's clients, one for each place."""

from __future__ import annotations

from desk import desk as desk
