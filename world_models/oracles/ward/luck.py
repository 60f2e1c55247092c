"""All random numbers of a step, drawn in one pass: functions of key, step and purpose (`world_models.keys`)."""

from __future__ import annotations

from torch import Tensor

from world_models import keys
from world_models.oracles.ward.state import Noise
from world_models.quantities.ward import INQUIRIES

__all__ = ["Luck"]

# purpose -> how many numbers
_COUNTS = {
    "ward/rebleeding": 1,
    "ward/thrombosis": 4,
    "ward/venepuncture": 1,
    "ward/lost specimen": len(INQUIRIES),
    "ward/blood culture": 1,
    "ward/urine culture": 1,
    "ward/time to positivity": 1,
    "ward/biology": len(INQUIRIES),
    "ward/analysis": len(INQUIRIES),
    "ward/turnaround": len(INQUIRIES),
    "ward/death": 1,
    "ward/discharge": 1,
}


class Luck:
    """What chance holds for patients `key` [B] in step `t` [B] of so many hours. The very bits of `keys.uniform` and
    `keys.normal`, asked for one by one."""

    def __init__(self, key: Tensor, t: Tensor, hours: int) -> None:
        counts = {"ward/noise": hours * len(Noise._fields), **_COUNTS}
        drawn = keys.uniforms(key, t, tuple(counts.items()))
        self._drawn = dict(zip(counts, drawn.split(list(counts.values()), -1), strict=True))

    def uniform(self, purpose: str) -> Tensor:
        """On (0, 1), [B], or [B, N] where a purpose has N numbers."""
        drawn = self._drawn[purpose]
        return drawn[:, 0] if drawn.shape[1] == 1 else drawn.contiguous()

    def normal(self, purpose: str) -> Tensor:
        """Standard normals, likewise."""
        return keys.to_normal(self.uniform(purpose))
