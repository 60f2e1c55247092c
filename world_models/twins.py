"""A world beside itself: with the same weights, and something else said of it."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["twin"]

W = TypeVar("W")


def twin(world: W, **changed: Any) -> W:
    """A world that shares everything with this one but the attributes `changed`. What is loaded once a process is never
    changed itself."""
    other = object.__new__(type(world))
    other.__dict__.update(world.__dict__)
    other.__dict__.update(changed)
    return other
