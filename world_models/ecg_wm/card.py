"""The card that goes with an ECG world model's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.step_error import StepError

__all__ = ["SOURCES", "Source", "write_card"]


class Source(NamedTuple):
    """Data that a model learned from."""

    name: str
    part: str  # of it that was learned from
    citation: str
    licence: str


_PHYSIONET = "PhysioNet (Goldberger 2000, doi 10.1161/01.CIR.101.23.e215)"
_ODC = "Open Data Commons Attribution License 1.0"
_CC = "Creative Commons Attribution 4.0"
TRIAL = Source("ECGRDVQ 1.0.0", "", f"Johannesen 2014, doi 10.1038/clpt.2014.155; {_PHYSIONET}", _ODC)
SOURCES = {  # by the option of the training command
    "ludb": Source(
        "LUDB 1.0.1", "the odd records", f"Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211; {_PHYSIONET}", _ODC
    ),
    "ptbxl": Source("PTB-XL 1.0.3", "folds 1 to 6", f"Wagner 2020, doi 10.1038/s41597-020-0495-6; {_PHYSIONET}", _CC),
    "challenge": Source(
        "PhysioNet Challenge 2021",
        "sample records",
        f"Reyna 2021, doi 10.23919/CinC53138.2021.9662687; {_PHYSIONET}",
        _CC,
    ),
}


def write_card(
    config: ECGWorldConfig, steps: Mapping[str, int], batch: int, beats: Sequence[str], off: Sequence[StepError]
) -> str:
    """CARD.md: what the model is, what it was made from, how, what it must not be used for.

    Args:
        beats: names in SOURCES of the real beats that it learned from.
        off: what the prior's nodes miss (`step_error`).
    """
    learned = "; ".join(f"{SOURCES[name].part} of {SOURCES[name].name}" for name in beats)
    shapes = f"synthetic beats and {learned}" if beats else "synthetic beats"
    command = "python -m world_models.ecg_wm.train --out DIR" + "".join(f" --{name} DIR" for name in beats)
    cited = "\n".join(f"- {s.name}: {s.citation}. {s.licence}." for s in (TRIAL, *(SOURCES[n] for n in SOURCES)))
    rows = [(e.dose_mg, e.drug, max(x.qtcf_ms for x in off if x.drug == e.drug)) for e in off]
    worst = {drug: (mg, ms, _percent(off, drug)) for mg, drug, ms in rows}
    errors = "\n".join(f"| {d} {mg:g} mg | {ms:.2f} | {share:.2f} |" for d, (mg, ms, share) in worst.items())
    stages = ", ".join(f"{count} {stage} steps" for stage, count in steps.items())
    return f"""# {config.name}

A learned world model of the 12-lead ECG under four antiarrhythmic drugs (ranolazine, dofetilide, verapamil,
quinidine) after ECG-WM (Chen et al. 2026, arXiv 2605.17580): beat autoencoder, physiological ODE prior, latent
diffusion with energy regularisation and a few-step sampler made of it, belief about the patient.

**Not for clinical use.** It was trained on simulated patients. Nothing it says is a prediction about a person.

## Training data

- Simulated patients of the mechanistic oracle, whose pharmacokinetics and pharmacodynamics are fitted to 16 of the 22
  healthy volunteers (18 to 35 years) of ECGRDVQ 1.0.0 / NCT01873950 (single oral doses). Older and sicker cohorts are
  assumptions laid on top of that fit, see `world_models/oracles/ecg_drug/cohort_table.py`.
- Beat shapes: {shapes}. The synthetic beats' wave heights are fitted on 114 sinus beats of LUDB 1.0.1, odd and even
  records.

Attribution:

{cited}

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
- Arrhythmia burden, torsades, block and blood pressure follow published summary figures, not records.
- One step of {min(e.hours for e in off):g} to {max(e.hours for e in off):g} h after the largest single order, less the
  same integrated by dopri5 (`PhysiologicalPrior.adaptive`), the largest over steps and patients:

| order | QTcF, ms | T amplitude, % |
|---|---|---|
{errors}
"""


def _percent(off: Sequence[StepError], drug: str) -> float:
    return max(e.t_amplitude_percent for e in off if e.drug == drug)
