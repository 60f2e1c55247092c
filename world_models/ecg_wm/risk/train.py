"""Make the risk predictor: `python -m world_models.ecg_wm.risk.train --out DIR` (resumable; minutes on one core).

Every step meets new patients of the oracle's cohorts (`data`), a third of them charted hourly and the others every
two hours, and learns by the log score (binary cross-entropy), which is proper: in the limit the outputs are the
probabilities. No patient is met twice, so there is nothing to stop early; the benchmark judges on others.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from world_models import checkpoint, keys
from world_models.command_line import trainer
from world_models.ecg_wm.risk.data import GRID_H, LARGE_RISE_MS, LONG_QTCF_MS, RiskExamples, risk_examples, with_gaps
from world_models.ecg_wm.risk.predictor import (
    HORIZON_H,
    KIND,
    QTCF_KNOTS_MS,
    RISE_KNOTS_MS,
    RISKS,
    RiskConfig,
    RiskPredictor,
    risk_inputs,
)
from world_models.training import Schedule, fit

__all__ = ["main", "train_risk"]

# Seeds of the patients: apart from those of the world's training (1e9, 2e9) and of the benchmarks (from 4e9 on).
TRAIN_SEED, SCALE_SEED = 3_000_000_000, 3_900_000_000
STRIDE = 100_000  # seeds from one step's patients to the next's
BATCH, VISITS, STEPS = 3072, 3, 600
MOST_STEPS = (SCALE_SEED - TRAIN_SEED) // STRIDE


def train_risk(
    out: Path, steps: int = STEPS, batch: int = BATCH, device: str = "cpu", inputs: tuple[str, ...] | None = None
) -> RiskPredictor:
    """Train, freeze and write the folder: config.json, model.safetensors, CARD.md; progress in `out/training`.

    Args:
        steps: of training, each on `batch` new patients.
        inputs: measures besides QTcF; None: all of `risk_inputs`, whatever the oracle charts by then.

    Returns:
        The predictor in evaluation mode; its seal goes into `clinenv.registration.WEIGHTS_SHA256`.

    Raises:
        ValueError: more steps than there are patients for.
        FloatingPointError, CheckpointError: see `training.fit`.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps={steps} must be at least 1 and at most {MOST_STEPS}, for which there are seeds")
    config = RiskConfig(risk_inputs() if inputs is None else inputs)
    torch.manual_seed(0)  # the network's first weights; nothing else uses a generator
    model = RiskPredictor(config).to(device)
    some = risk_examples(keys.from_seed(SCALE_SEED, 4096, device), config.inputs)
    _scale(model, some)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(TRAIN_SEED + step * STRIDE, batch, device)
        data = risk_examples(key, config.inputs, (2.0, 2.0, 1.0)[step % 3], VISITS)
        row = keys.from_seed(TRAIN_SEED + step * STRIDE, len(data.patient), device)
        shown = with_gaps(keys.fold(row, "gaps"), data, config.inputs)
        logits = model.logits(shown.inputs, shown.qtcf_ms, shown.rise_ms)
        each = nn.functional.binary_cross_entropy_with_logits(logits, shown.outcome, reduction="none").mean(0)
        rates = shown.outcome.mean(0).tolist()
        named = {f"log_score_{n}": v for n, v in zip(RISKS, each.detach().tolist(), strict=True)}
        # A mean of its own for the rare event would hardly move the shared network: ten times its weight.
        return each[0] + 10 * each[1], {**named, **{f"rate_{n}": r for n, r in zip(RISKS, rates, strict=True)}}

    schedule = Schedule(steps, learning_rate=3e-3, warm_up=20, weight_decay=1e-4, average=0.99)
    fit(model, loss, schedule, out / "training", "risk")
    model.eval().requires_grad_(False)
    plain = {"kind": KIND, **dataclasses.asdict(config)}
    model.weights_sha256 = checkpoint.save_checkpoint(out, model.state_dict(), plain, card(config, steps, batch))
    return model


def _scale(model: RiskPredictor, data: RiskExamples) -> None:
    """Middle and spread of the inputs, of what is not missing; 0 and 1 for what always is."""
    seen = ~data.inputs.isnan()
    count = seen.sum(0).clamp_min(1)
    middle = torch.where(seen, data.inputs, 0.0).sum(0) / count
    spread = (torch.where(seen, data.inputs - middle, 0.0).square().sum(0) / count).sqrt()
    model.middle.copy_(middle)
    model.scale.copy_(torch.where(spread < 1e-3, 1.0, spread))


def card(config: RiskConfig, steps: int, batch: int) -> str:
    """CARD.md: what the predictor is, what it was made from, what it must not be used for."""
    return f"""# {config.name}

A frozen risk predictor: from one 12-lead ECG's measures, age and sex to the chance that torsades de pointes, a QTcF
above {LONG_QTCF_MS:g} ms or one more than {LARGE_RISE_MS:g} ms above the admission ECG is there now or comes within
{HORIZON_H:g} h, with an ECG every {GRID_H:g} h, if nothing more is given; and the chance of torsades alone.

**Not for clinical use.** It was trained on simulated patients. Nothing it says is a prediction about a person.

## Training data

Simulated patients of every cohort of the mechanistic oracle (`world_models/oracles/ecg_drug`) under plans of none, one
or two of its four drugs that stop at a step of their own: charts, and the events of the day after. The oracle's QT
effects are fitted to ECGRDVQ 1.0.0 / NCT01873950 (Johannesen et al. 2014, doi 10.1038/clpt.2014.155; PhysioNet, Open
Data Commons Attribution License 1.0); its torsades follow published summary figures.

## Training

`python -m world_models.ecg_wm.risk.train --out DIR`: {steps} steps on {batch} new patients each, binary cross-entropy,
AdamW with a cosine schedule, averaged weights kept. Half of the charts lack some measures, as clinics' charts do.

## Model

Inputs: qtcf_ms, {", ".join(config.inputs)}; any may be missing. The logit is a sum of {len(QTCF_KNOTS_MS)} ramps in
QTcF and {len(RISE_KNOTS_MS)} in its rise, with non-negative slopes that a network of width {config.width} chooses from
the other measures: the risk never falls as QTcF grows.

## Evaluation

`python -m benchmarks.ecg_drug.risk` (patients never met: AUROC, log and Brier score, reliability, by cohort).

## Limits

- The risk is that of the oracle's patients, at the oracle's rates. Torsades follow its hazard, not records.
- Doses and hours since them are not seen: an ECG on the way up to the peak is judged as one on the way down.
- Electrolytes and T-wave measures count only where the oracle charted them when this was trained (see the inputs).
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; the process' exit code."""
    parser = trainer("world_models.ecg_wm.risk.train", __doc__, (STEPS, MOST_STEPS), (BATCH, STRIDE), "patients")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        model = train_risk(chosen.out, chosen.steps, chosen.batch, chosen.device)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{chosen.out}: seal {model.weights_sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
