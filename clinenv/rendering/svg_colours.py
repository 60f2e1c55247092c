"""Colours of the SVG pictures: CSS variables, so that a page can darken them, each with its light default."""

from __future__ import annotations

__all__ = [
    "AFTER",
    "BEFORE",
    "CARD",
    "DOSE",
    "GRID",
    "GRID_BOLD",
    "INK",
    "MUTED",
    "PAPER",
    "RECORDED",
    "RULE",
    "SERIES",
    "WARNING",
]

INK, MUTED, RULE, CARD = "var(--ink,#14141c)", "var(--muted,#5d6068)", "var(--rule,#e2e2e8)", "var(--card,#fff)"
PAPER, GRID, GRID_BOLD = "var(--paper,#fffaf7)", "var(--grid,#fae1db)", "var(--grid-bold,#eeb4ac)"
SERIES, DOSE, WARNING = "var(--series,#1c549e)", "var(--dose,#a06a00)", "var(--warn,#b01c2e)"
RECORDED, BEFORE, AFTER = "var(--recorded,#0f7b5f)", "var(--before,#72757e)", "var(--after,#b3470b)"
