"""The model card that ships beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from world_models.ecg_wm.config import ECGWorldConfig

if TYPE_CHECKING:
    from world_models.ecg_wm.step_error import StepError

__all__ = ["write_card"]


def write_card(
    config: ECGWorldConfig, steps: dict[str, int], batch: int, real_beats: bool, off: Mapping[str, StepError]
) -> str:
    """CARD.md: what the model is, what it was made from, how, what it must not be used for."""
    beats = "synthetic beats and the real beats of LUDB's odd records" if real_beats else "synthetic beats"
    command = f"python -m world_models.ecg_wm.train --out DIR{' --ludb LUDB' if real_beats else ''}"
    errors = "\n".join(f"| {n} {e.dose_mg:g} mg | {e.mean_ms:+.1f} | {e.largest_ms:.1f} |" for n, e in off.items())
    hours = f"{config.hours_per_step:g} h"
    stages = ", ".join(f"{count} {stage} steps" for stage, count in steps.items())
    return f"""# {config.name}

A learned world model of the 12-lead ECG under four antiarrhythmic drugs (ranolazine, dofetilide, verapamil,
quinidine): beat autoencoder, physiological ODE prior, few-step residual flow, belief about the patient.

**Not for clinical use.** It was trained on simulated patients. Nothing it says is a prediction about a person.

## Training data

- Simulated patients of the mechanistic oracle, whose pharmacokinetics and pharmacodynamics are fitted to 16 of the 22
  healthy volunteers (18 to 35 years) of ECGRDVQ 1.0.0 / NCT01873950 (single oral doses). Older and sicker cohorts are
  assumptions laid on top of that fit, see `world_models/oracles/ecg_drug/cohorts.py`.
- Beat shapes: {beats}; the synthetic beats' wave heights are fitted on 114 sinus beats of
  LUDB 1.0.1, odd and even records.

Attribution: ECGRDVQ, Johannesen et al. 2014, doi 10.1038/clpt.2014.155, and LUDB, Kalyakulina et al. 2020, doi
10.1109/ACCESS.2020.3029211, both from PhysioNet (Goldberger et al. 2000, doi 10.1161/01.CIR.101.23.e215) under the
Open Data Commons Attribution License 1.0.

## Training

`{command}`: {stages}, batches of {batch},
AdamW with a cosine schedule, averaged weights kept. Patients are simulated while training and never repeated; the
spread is calibrated on 2,048 further ones.

## Evaluation

`python -m benchmarks.ecg_drug.fidelity` (unseen generated patients, oracle truth) and
`python -m benchmarks.ecg_drug.trial --trial DIR --world {config.name}` (the real trial's subjects). The figures stand
in `docs/results/ecg_drug.md`.

## Limits

- Single doses in healthy volunteers are all that the drug effects were fitted on; repeated doses, interactions, other
  ages and heart disease are extrapolated. `support` is false beyond the drug levels met in training.
- Arrhythmia burden and torsades follow published summary figures, not records.
- The beat's shape does not change under a drug; only its intervals do.
- The prior goes {config.substeps} substeps a step and its rates were learned with them. QTcF in ms one step of {hours}
  after a first dose, less what the same rates give when they are integrated exactly (`PhysiologicalPrior.adaptive`):

| dose | mean | largest |
|---|---|---|
{errors}

So another `hours_per_step` than {hours} gives another course soon after a dose, by about as much.
"""
