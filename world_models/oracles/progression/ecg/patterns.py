"""Lead tables of the abnormal beat: where a condition lifts, lowers or reshapes which lead, in mV for an average heart.

Each row has eight numbers: I, II, V1 ... V6 (III = II - I, so an inferior sign stands in II and, with the other sign,
in I). QRS patterns are sums of a size per lead times a course over the QRS (eight Gaussians side by side, which add up
to about 1.3 times their height). Shapes and polarities follow the AHA/ACCF/HRS recommendations for the standardization
and interpretation of the ECG, 2009: part III conduction (Surawicz, doi 10.1016/j.jacc.2008.12.013), IV ST, T and QT
(Rautaharju), V hypertrophy (Hancock), VI ischaemia (Wagner), the last three from memory (k); the sizes in mV are ours,
of the order of textbook examples (k).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["SECONDARY", "TERRITORY", "qrs_pattern"]

Row = tuple[float, float, float, float, float, float, float, float]

_BODY: Row = (0.05, 0.25, 0.55, 0.85, 0.95, 0.85, 0.50, 0.12)  # slow rise, slow fall
_NOTCH: Row = (0.0, 0.15, 0.40, 0.05, -0.40, 0.05, 0.35, 0.10)
_EARLY: Row = (0.5, 1.0, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0)
_LATE: Row = (0.0, 0.0, 0.0, 0.0, 0.05, 0.60, 1.00, 0.50)
_DELTA: Row = (0.35, 0.65, 0.55, 0.30, 0.10, 0.0, 0.0, 0.0)
_Q: Row = (0.30, 0.90, 0.90, 0.25, 0.0, 0.0, 0.0, 0.0)

#                       I      II     V1     V2     V3     V4     V5     V6
# name -> ((size per lead), course) parts of the QRS
_QRS: dict[str, tuple[tuple[Row, Row], ...]] = {
    "lbbb": (
        ((0.55, 0.35, -0.85, -1.35, -1.15, -0.30, 0.60, 0.75), _BODY),
        ((0.40, 0.20, 0.00, 0.00, 0.10, 0.20, 0.50, 0.45), _NOTCH),
        ((0.00, 0.05, 0.12, 0.15, 0.15, 0.10, 0.00, 0.00), _EARLY),
    ),
    "rbbb": (((-0.35, -0.10, 0.65, 0.50, 0.10, -0.18, -0.32, -0.36), _LATE),),
    "delta_left": (((-0.06, 0.20, 0.25, 0.30, 0.30, 0.28, 0.20, 0.14), _DELTA),),
    "delta_septal": (((0.25, -0.12, -0.12, 0.25, 0.32, 0.32, 0.28, 0.25), _DELTA),),
    "paced": (
        ((0.55, -0.75, -0.70, -1.15, -1.20, -1.00, -0.60, -0.25), _BODY),
        ((0.15, -0.10, 0.00, 0.00, 0.00, -0.10, -0.10, 0.00), _NOTCH),
    ),
    "biventricular": (  # both at once: away from I, towards V1, axis to the upper right
        ((-0.45, -0.55, 0.50, 0.25, -0.30, -0.55, -0.45, -0.35), _BODY),
        ((-0.20, -0.05, 0.10, 0.10, 0.00, -0.05, -0.10, -0.10), _EARLY),
    ),
    "outflow": (  # from the right outflow tract: left-bundle shape, axis downwards
        ((0.20, 1.20, -0.80, -1.20, -0.60, 0.60, 0.95, 0.90), _BODY),
        ((0.10, 0.15, 0.00, 0.00, 0.00, 0.10, 0.10, 0.10), _NOTCH),
    ),
    "left_ventricle": (  # right-bundle shape, axis upwards
        ((-0.40, -1.00, 0.95, 1.00, 0.60, -0.20, -0.65, -0.80), _BODY),
        ((0.00, 0.15, 0.30, 0.10, 0.00, 0.00, 0.00, 0.00), _NOTCH),
    ),
    "right_ventricle": (  # left-bundle shape, axis upwards
        ((0.80, -0.70, -0.80, -1.30, -1.20, -0.50, 0.30, 0.60), _BODY),
        ((0.20, 0.00, 0.00, 0.10, 0.00, 0.00, 0.15, 0.20), _NOTCH),
    ),
    "q_anterior": (((0.00, 0.00, -0.12, -0.45, -0.50, -0.30, -0.08, 0.00), _Q),),
    "q_inferior": (((0.05, -0.30, 0.04, 0.06, 0.02, 0.00, 0.00, -0.03), _Q),),
    "q_lateral": (((-0.28, 0.00, 0.10, 0.10, 0.00, -0.05, -0.28, -0.28), _Q),),
    "right_force": (((-0.35, 0.05, 0.85, 0.45, 0.00, -0.25, -0.40, -0.40), (0, 0, 0.2, 0.7, 1.0, 0.8, 0.3, 0)),),
    "s1q3": (
        ((-0.25, 0.00, 0.05, 0.02, 0.00, -0.05, -0.12, -0.12), (0, 0, 0, 0, 0.1, 0.7, 1.0, 0.3)),
        ((0.10, -0.08, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00), _EARLY),
    ),
    "notches": (
        ((0.15, 0.20, -0.12, 0.20, 0.26, 0.26, 0.20, 0.15), (0, 0.3, -0.8, 1.0, -1.0, 0.9, -0.5, 0.4)),
        ((-0.06, -0.04, -0.12, -0.25, -0.28, -0.22, -0.06, 0.00), _BODY),
    ),
    "septal_q": (((-0.05, -0.02, 0.04, 0.05, 0.00, -0.06, -0.16, -0.18), _EARLY),),
}


# ST and T that go with a changed activation ("secondary"): opposed to the QRS's main direction.
SECONDARY: dict[str, tuple[Row, Row]] = {  # name -> (ST, T)
    "lbbb": (
        (-0.06, -0.02, 0.08, 0.15, 0.12, 0.03, -0.06, -0.09),
        (-0.22, -0.08, 0.30, 0.55, 0.50, 0.20, -0.18, -0.28),
    ),
    "rbbb": ((0.0, 0.0, -0.03, -0.03, 0.0, 0.0, 0.0, 0.0), (0.20, 0.22, -0.20, -0.15, 0.15, 0.35, 0.30, 0.25)),
    "delta_left": ((0.0, -0.03, -0.03, -0.03, 0.0, 0.0, -0.02, 0.0), (0.15, 0.0, -0.1, 0.1, 0.2, 0.2, 0.1, 0.1)),
    "delta_septal": ((-0.03, 0.02, 0.02, 0.0, -0.03, -0.03, -0.03, -0.03), (0.0, 0.25, 0.1, 0.3, 0.2, 0.1, 0.0, 0.0)),
    "paced": (
        (-0.05, 0.08, 0.08, 0.14, 0.14, 0.10, 0.06, 0.03),
        (-0.25, 0.40, 0.25, 0.50, 0.55, 0.45, 0.30, 0.12),
    ),
    "biventricular": (
        (0.04, 0.05, -0.05, -0.02, 0.03, 0.05, 0.04, 0.03),
        (0.20, 0.25, -0.15, 0.05, 0.25, 0.35, 0.30, 0.22),
    ),
    "outflow": (
        (-0.02, -0.10, 0.08, 0.12, 0.05, -0.06, -0.10, -0.09),
        (-0.10, -0.40, 0.30, 0.50, 0.25, -0.20, -0.35, -0.35),
    ),
    "left_ventricle": (
        (0.04, 0.10, -0.10, -0.10, -0.05, 0.02, 0.07, 0.08),
        (0.15, 0.40, -0.40, -0.40, -0.25, 0.10, 0.25, 0.30),
    ),
    "right_ventricle": (
        (-0.08, 0.07, 0.08, 0.13, 0.12, 0.05, -0.03, -0.06),
        (-0.30, 0.30, 0.30, 0.50, 0.50, 0.20, -0.12, -0.25),
    ),
}

# Of an infarction. rows: anterior, inferior, lateral.
TERRITORY: dict[str, tuple[Row, Row, Row]] = {
    "st_elevation": (
        (0.04, -0.07, 0.10, 0.26, 0.32, 0.24, 0.10, 0.03),
        (-0.11, 0.14, -0.03, -0.12, -0.08, 0.00, 0.03, 0.04),
        (0.15, -0.06, -0.06, -0.08, 0.00, 0.06, 0.19, 0.20),
    ),
    "t_inversion": (  # share of the way to the inverted T
        (0.30, 0.0, 0.4, 1.0, 1.0, 1.0, 0.6, 0.2),
        (0.0, 1.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.5),
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.4, 1.0, 1.0),
    ),
    "r_loss": (  # share of R that is lost
        (0.0, 0.0, 0.9, 0.95, 0.9, 0.55, 0.15, 0.0),
        (0.0, 0.45, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2),
        (0.45, 0.0, 0.0, 0.0, 0.0, 0.1, 0.45, 0.45),
    ),
}


@lru_cache(maxsize=64)
def qrs_pattern(name: str, device: torch.device) -> Tensor:
    """Heights in mV [8 leads, 8 Gaussians] of a QRS shape of an average heart."""
    total = torch.zeros(8, 8, device=device)
    for size, course in _QRS[name]:
        total = total + torch.tensor(size, device=device).unsqueeze(1) * torch.tensor(course, device=device)
    return total
