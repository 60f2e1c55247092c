"""Where training of the kinetics starts: rough rates of each drug, and its dose in the trial."""

from __future__ import annotations

from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["REFERENCE_MG", "START_RATES"]

START_RATES = tuple(d.learning_rates_per_h for d in ANTIARRHYTHMICS)  # [D, 6] per h, as `latent_ode` orders them
REFERENCE_MG = tuple(d.trial_dose_mg for d in ANTIARRHYTHMICS)  # amounts are counted in the trial's single dose
