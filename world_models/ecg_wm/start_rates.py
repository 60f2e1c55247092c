"""Where training of the kinetics starts: rough rates of each drug, and its dose in the trial."""

from __future__ import annotations

from world_models.quantities.drugs import ANTIARRHYTHMICS

__all__ = ["REFERENCE_MG", "START_RATES"]

LASTING_PER_H = 0.03  # of the lasting site: what sets in over a day or two
# [D, 7] per h, as `latent_ode` orders them
START_RATES = tuple((*d.learning_rates_per_h, LASTING_PER_H) for d in ANTIARRHYTHMICS)
REFERENCE_MG = tuple(d.trial_dose_mg for d in ANTIARRHYTHMICS)  # amounts are counted in the trial's single dose
