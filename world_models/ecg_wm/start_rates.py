"""Where training of the kinetics starts: rough rates of each drug, and its dose in the trial."""

from __future__ import annotations

__all__ = ["REFERENCE_MG", "START_RATES"]

# For the drugs of `ecg_drug.DRUGS`: ka, ke, k12, k21, k_fast, k_slow per hour (`latent_ode`).
START_RATES = (
    (1.0, 0.10, 0.02, 0.10, 3.0, 0.6),
    (1.0, 0.11, 0.05, 0.10, 3.0, 0.6),
    (3.0, 0.30, 0.20, 0.15, 3.0, 0.6),
    (2.0, 0.10, 0.05, 0.10, 3.0, 0.6),
)
REFERENCE_MG = (1500.0, 0.5, 120.0, 400.0)  # the trial's single dose: amounts are counted in it
