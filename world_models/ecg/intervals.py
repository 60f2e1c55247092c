"""Corrections of ECG intervals for the heart rate, the one home of their formulas.

QTcF = QT / RR^(1/3) (Fridericia 1920, doi 10.1111/j.0954-6820.1920.tb18266.x) and J-Tpeak c = J-Tpeak / RR^0.58
(Johannesen 2014, doi 10.1038/clpt.2014.155), RR in s. The powers are exponentials of log RR, which a caller takes once:
cheaper than pow, and even in any batch (`rounding`). Arrays outside torch use the exponents.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["JT_PEAK_EXPONENT", "QT_EXPONENT", "jt_peak_scale", "log_rr", "qt_scale", "rr_scales"]

QT_EXPONENT = 1.0 / 3.0
JT_PEAK_EXPONENT = 0.58


def log_rr(heart_rate_bpm: Tensor) -> Tensor:
    """Natural logarithm [...] of RR in s, of a heart rate [...] in bpm."""
    return (60.0 / heart_rate_bpm).log()


def qt_scale(log_rr: Tensor) -> Tensor:
    """RR^(1/3) [...]: QT divided by it is QTcF."""
    return (log_rr * QT_EXPONENT).exp()


def jt_peak_scale(log_rr: Tensor) -> Tensor:
    """RR^0.58 [...]: J-Tpeak divided by it is J-Tpeak c."""
    return (log_rr * JT_PEAK_EXPONENT).exp()


def rr_scales(heart_rate_bpm: Tensor) -> tuple[Tensor, Tensor]:
    """`qt_scale` and `jt_peak_scale` [...] at heart rates [...] in bpm."""
    log = log_rr(heart_rate_bpm)
    return qt_scale(log), jt_peak_scale(log)
