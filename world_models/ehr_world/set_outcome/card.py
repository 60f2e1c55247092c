"""The model card that ships beside the weights."""

from __future__ import annotations

from collections.abc import Mapping

from world_models.ehr_world.set_outcome.config import SetOutcomeConfig
from world_models.ehr_world.vocabulary import Vocabulary

__all__ = ["write_card"]


def write_card(
    config: SetOutcomeConfig,
    words: Vocabulary,
    command: str,
    source: str,
    figures: Mapping[str, float | int],
    judged: str | None = None,
) -> str:
    """CARD.md: what the model is, what it was made from, how, what it must not be used for.

    Args:
        command: the command line that makes it.
        source: the paragraph on the training data, attribution included.
        figures: name -> value, as measured on the validation stays when training ended.
        judged: the command of the tests on unseen patients; None: that of the ward's worlds.
    """
    tests = f"""Tests on unseen patients beside baselines:
`{judged}`; on anybody's stays:
`python -m benchmarks.ward.fidelity --meds FILE_OR_DIR --world {config.name} --out metrics.json`."""
    if judged is None:
        tests = f"""Tests on unseen patients beside baselines and the oracle's ceiling:
`python -m benchmarks.ward.fidelity --world {config.name} --work DIR`."""
    measured = "\n".join(f"| {n} | {v:.4g} |" for n, v in figures.items())
    backbone = {"gru": "GRU", "transformer": "causal transformer"}[config.backbone]
    context = "with or without" if config.with_diagnoses else "without"
    more = "Queries read how an item\nhas gone (running means, changes, repeats). " if config.trends else ""
    more += "A share of the mass may lie on the last report.\n" if config.repeats else ""
    if config.temperature != 1.0:
        more += f"Bins have a temperature of {config.temperature:g}: so the validation stays were likeliest.\n"
    return f"""# {config.name}

A learned hospital stay (form `set_outcome`): in steps of {words.hours_per_step:g} h it answers a set of concurrent
orders, {len(words.items)} inquiries and {len(words.treatments)} interventions, with a joint distribution over what the
inquiries return, when results come, death and discharge. Static context {context} discharge diagnoses.

**Not for clinical use.** Nothing it says is a prediction about a person.

## Training data

{source}

## Training

`{command}`

One position per step, events pooled as a set, {config.layers}-layer {backbone} of {config.hidden}, \
a query per ordered item over
quantile bins, a Gaussian copula of rank {config.rank} over the slots of a step. {more}\
AdamW, cosine schedule, averaged weights.

## Measured on validation stays at the end of training (next step, true history)

| figure | value |
|---|---|
{measured}

NLL in nats a value, density on the item's own scale. {tests}

## Limits

- It knows the {len(words.items) + len(words.treatments)} orders of its vocabulary and steps of
  {words.hours_per_step:g} h; `support` is false beyond the length of stay, the static context and the number of
  concurrent interventions that training met.
- What it learned of a treatment's effect comes from the record's own variation in treatment. Where a clinician acts on
  what no chart shows, such effects are biased (`--confounding`).
- Derived measures (anion gap, haematocrit beside haemoglobin) agree only as far as the copula carries.
"""
