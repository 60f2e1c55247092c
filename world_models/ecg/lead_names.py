"""The leads of an ECG, by name and in the order in which every array of this project has them."""

from __future__ import annotations

__all__ = ["INDEPENDENT_LEADS", "LEADS"]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")  # the other four follow from I and II
