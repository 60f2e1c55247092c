"""The model card that ships beside the weights."""

from __future__ import annotations

from collections.abc import Mapping

from world_models.cardiac_jepa.config import JEPAConfig

__all__ = ["write_card"]


def write_card(name: str, config: JEPAConfig, command: str, source: str, figures: Mapping[str, float | int]) -> str:
    """CARD.md: what the model is, what it was made from, how, what it must not be used for.

    Args:
        command: the command line that makes it.
        source: the paragraph on the training data.
        figures: name -> value, measured on validation patients when training ended.
    """
    measured = "\n".join(f"| {n} | {v:.4g} |" for n, v in figures.items())
    codes = " ".join(config.codes)
    predictor = "Neural ODE in elapsed time" if config.dynamics == "ode" else "residual predictor"
    inverse = f" and inverse dynamics, linear (weight {config.inverse:g})" if config.inverse else ""
    return f"""# {name}

Years of clinic visits on latents of the 12-lead ECG: what was found at the last visit, the orders and the time to the
next in, the next latent and what a linear probe reads off it out. No waveform is generated.

**Not for clinical use.** Nothing it says is a prediction about a person.

## Training data

{source}

## Training

`{command}`

An xResNet1d of blocks {config.blocks} and {config.out} channels, a three-layer projector to {config.latent}, a
{predictor} of width {config.dynamics_hidden} told the change of {len(config.codes)} ICD-10 codes ({codes}) and
the days in between; squared error of the predicted latent, {config.regulariser.upper()}
(weight {config.weight:g}){inverse}.
AdamW, one-cycle schedule. A linear probe (logistic) on the latent; a two-state Markov process a condition for the
labels, fitted to visits and orders.

## Measured on validation patients at the end of training

| figure | value |
|---|---|
{measured}

Tests on unseen patients beside baselines: `python -m benchmarks.progression.fair_arms`, `python -m
benchmarks.progression.actions --world {name}`; on real ECGs of your own: `python -m benchmarks.progression.fidelity
--records DIR --labels CSV --world {name} --out metrics.json`.

## Limits

- It knows these {len(config.codes)} codes; other codes of the chapter can be given to the action's projector by their
  block only.
- What an ECG does not show (hypertension, peripheral arteries, venous thrombosis) its latent does not hold.
- The labels' process knows what is present, age, sex and treatment, not how long a condition has lasted nor any hidden
  frailty; effects of treatment are those of the simulated visits it was fitted to.
"""
