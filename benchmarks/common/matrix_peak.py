"""What this machine's matrix products reach, and how much of it the passes through learned weights do."""

from __future__ import annotations

import torch

from benchmarks.common.timing import rate

__all__ = ["SIZES", "matrix_peak", "share_of_peak"]

SIZES = (256, 512, 1024)  # of square float32 matrices: in the caches of a core, and beyond them


def matrix_peak(seconds: float, repeats: int) -> dict[str, float]:
    """Floating-point operations a second of float32 matrix products, the best of `SIZES`: of wall clock ("median") and
    of processor time ("cpu"), with the "size" that reached it."""
    found = []
    for size in SIZES:
        a, b = torch.randn(2, size, size, generator=torch.Generator().manual_seed(size)).unbind()
        out = torch.empty(size, size)

        def work(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out, size: int = size) -> int:
            torch.mm(a, b, out=out)
            return 2 * size**3

        found.append({**rate(work, seconds, repeats), "size": size})
    return max(found, key=lambda row: row["cpu"])


def share_of_peak(flops: float, cpu_s: float, peak: float) -> float:
    """The share (0 to 1) of `peak` operations a second that `flops` operations in `cpu_s` seconds are; 0 of none."""
    return flops / (cpu_s * peak) if flops else 0.0
