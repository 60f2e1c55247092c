"""A signal with gaps as unbroken traces, and traces as SVG path data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["path_data", "unbroken"]

PATH_UNITS_PER_MM = 100  # path data is whole numbers of these; an SVG scales it by 1 / PATH_UNITS_PER_MM


def unbroken(good: np.ndarray) -> list[slice]:
    """The stretches in which bool [N] holds throughout, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], good.astype(np.int8), [0]))))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def path_data(traces: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """Traces (x, y) in mm as SVG path data: whole hundredths of a millimetre, relative steps.

    A fifth of the length that absolute places in millimetres would take.
    """
    out = []
    for x, y in traces:
        at = np.rint(np.stack([x, y], axis=1) * PATH_UNITS_PER_MM).astype(int)
        out.append(f"M{at[0, 0]} {at[0, 1]}l" + " ".join(f"{dx} {dy}" for dx, dy in np.diff(at, axis=0)))
    return "".join(out).replace(" -", "-")
