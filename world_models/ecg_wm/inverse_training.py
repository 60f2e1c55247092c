"""Make the inverse dynamics: `python -m world_models.ecg_wm.inverse_training --out DIR` (resumable; a few minutes).

It learns from single orders in the oracle (`transitions`), each pair of charts met with other parts of it lost every
time: pressure, burden, the T wave, single measures, covariates. Its temperatures are of patients it has not met.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from world_models import keys
from world_models.command_line import MOST, trainer, whole
from world_models.ecg_wm import latent
from world_models.ecg_wm.inverse import ECG_ONLY, SHIPPED, InverseConfig, InverseDynamics
from world_models.ecg_wm.transitions import COVARIATES, HOURS, Transition, pooled, rows_of
from world_models.nn.mlp import sample_weights
from world_models.quantities.ecg_drug import DRUGS
from world_models.training import Schedule, fit

__all__ = ["hidden", "inverse_loss", "train_inverse"]

TRAIN_SEED, CALIBRATE_SEED = 5_000_000_000, 6_000_000_000  # of patients; the benchmark's are its own
STRIDE = 100_000  # seeds from one step's batch to the next's
STEPS, BATCH, PAIRS = 3000, 1024, 320_000
MOST_STEPS = (CALIBRATE_SEED - TRAIN_SEED) // STRIDE
_GROUP_LOST, _ONE_LOST, _SOME_LOST, _COVARIATE_LOST, _NOT_ECG_LOST = 0.2, 0.15, 0.4, 0.2, 0.5  # shares in training


def hidden(data: Transition, key: Tensor) -> Transition:
    """The same pairs, some of what they hold lost at random: pressure, burden, the T wave, single ones, covariates."""

    def chance(name: str, shape: tuple[int, ...] = ()) -> Tensor:
        return keys.uniform(key, 0, f"hidden/{name}", shape)

    names = latent.COORDINATES
    lost = (chance("one", (len(names),)) < _ONE_LOST) & (chance("some") < _SOME_LOST).unsqueeze(-1)
    ecg = torch.tensor(ECG_ONLY, device=key.device)
    lost |= ~ecg & (chance("not ecg") < _NOT_ECG_LOST).unsqueeze(-1)
    t_wave = torch.tensor([name in latent.T_WAVE for name in names], device=key.device)
    lost |= t_wave & (chance("t wave") < _GROUP_LOST).unsqueeze(-1)
    unknown = chance("covariates", (len(COVARIATES),)) < _COVARIATE_LOST
    return data._replace(
        before=data.before.masked_fill(lost, torch.nan),
        after=data.after.masked_fill(lost, torch.nan),
        covariates=data.covariates.masked_fill(unknown, torch.nan),
    )


def _bin_of(model: InverseDynamics, data: Transition) -> Tensor:
    which = (data.drug - 1).clamp_min(0)
    edges = model.edges_mg[which].log().contiguous()
    place = torch.searchsorted(edges, data.dose_mg.clamp_min(1e-9).log().unsqueeze(-1)).squeeze(-1) - 1
    return place.clamp(0, model.config.bins - 1)


def inverse_loss(model: InverseDynamics, data: Transition) -> tuple[Tensor, Tensor]:
    """Negative log-likelihoods, nats a pair: of the drug, and of the dose's bin where a drug was given."""
    drug, dose = model(data.before, data.after, data.hours, data.covariates)
    given = data.drug > 0
    of_drug = dose[torch.arange(len(given)), (data.drug - 1).clamp_min(0)]
    each = F.cross_entropy(of_drug, _bin_of(model, data), reduction="none")
    return F.cross_entropy(drug, data.drug), (each * given).sum() / given.sum().clamp_min(1)


def _calibrate(model: InverseDynamics, batch: int) -> dict[str, float]:
    """Temperatures [2] by maximum likelihood on patients that training has not met (Guo 2017, arXiv:1706.04599)."""
    data = pooled(CALIBRATE_SEED, batch, model.edges_mg.device)
    data = hidden(data, keys.from_seed(CALIBRATE_SEED, len(data.hours), model.edges_mg.device))
    tried = torch.linspace(0.6, 2.0, 57)
    with torch.no_grad():
        drug, dose = model(data.before, data.after, data.hours, data.covariates)
        given = data.drug > 0
        of_drug = dose[torch.arange(len(given)), (data.drug - 1).clamp_min(0)][given]
        place = _bin_of(model, data)[given]
        losses = [(F.cross_entropy(drug / t, data.drug), F.cross_entropy(of_drug / t, place)) for t in tried.tolist()]
        best = torch.tensor(losses).argmin(0)
        model.temperature.copy_(tried[best])
    return {"drug_temperature": float(tried[best[0]]), "dose_temperature": float(tried[best[1]])}


def train_inverse(
    out: Path,
    steps: int = STEPS,
    batch: int = BATCH,
    config: InverseConfig | None = None,
    device: torch.device | str = "cpu",
    pairs: int = PAIRS,
) -> InverseDynamics:
    """Train on `pairs` of the oracle's, made anew at each start (a minute), each met with other coordinates lost every
    time; calibrate, and write the sealed folder `out` (resumable, `out/training`).

    Raises:
        FloatingPointError, CheckpointError: see `training.fit`.
    """
    model = InverseDynamics(config or InverseConfig()).to(device)
    sample_weights(model, TRAIN_SEED)

    pool = pooled(TRAIN_SEED, max(batch, pairs // len(HOURS)), device)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(TRAIN_SEED + step * STRIDE, batch, torch.device(device))
        row = (keys.uniform(key, 0, "inverse/row") * len(pool.hours)).long().clamp_max(len(pool.hours) - 1)
        drug, dose = inverse_loss(model, hidden(rows_of(pool, row), keys.fold(key, "inverse/hidden")))
        return drug + 0.5 * dose, {"drug": drug.item(), "dose": dose.item()}

    work = Path(out) / "training"
    fit(model, loss, Schedule(steps, learning_rate=2e-3, weight_decay=1e-4), work, "inverse")
    figures = _calibrate(model.eval(), 2048)
    with open(work / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"stage": "calibrate", **figures}) + "\n")
    model.weights_sha256 = model.save(out, _card(steps, batch, len(pool.hours), figures))
    return model.requires_grad_(False)


def _card(steps: int, batch: int, pairs: int, figures: dict[str, float]) -> str:
    return f"""# {SHIPPED}

Inverse dynamics of the antiarrhythmic world after ECG-WM (Chen et al. 2026, arXiv 2605.17580): from two ECGs'
coordinates, the hours between them and covariates to which of nothing, {", ".join(DRUGS)}
was given after the first, and how much, as probabilities. Any coordinate or covariate may be missing.

**Not for clinical use.** It was trained on simulated patients. Nothing it says is a finding about a person.

## Training

`python -m world_models.ecg_wm.inverse_training --out DIR`: {steps} steps of {batch} of {pairs:,} pairs
of the mechanistic oracle (all cohorts, {HOURS[0]:g} to {HOURS[-1]:g} h, single orders), some of each hidden anew.
The oracle is fitted to ECGRDVQ 1.0.0 / NCT01873950 (Johannesen 2014, doi 10.1038/clpt.2014.155; PhysioNet, Open Data
Commons Attribution License 1.0). Temperatures {figures["drug_temperature"]:.3f} (drug) and
{figures["dose_temperature"]:.3f} (dose) are of other simulated patients.

## Evaluation

`python -m benchmarks.ecg_drug.inverse`, beside the oracle's own posterior. Two ECGs seldom tell dofetilide from
quinidine, which both block IKr.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; the process' exit code."""
    parser = trainer("world_models.ecg_wm.inverse_training", __doc__, (STEPS, MOST_STEPS), (BATCH, STRIDE), "pairs")
    parser.add_argument("--pairs", type=whole(16, MOST), default=PAIRS, help=f"in all (default {PAIRS})")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        model = train_inverse(chosen.out, chosen.steps, chosen.batch, device=chosen.device, pairs=chosen.pairs)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{chosen.out}: seal {model.weights_sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
