"""Make an ECG world model from oracle cohorts: `python -m world_models.ecg_wm.train --out DIR`.

Stages, each resumable on its own: the beat autoencoder, the dynamics (prior, belief, spread together), the belief
alone, all of it by what it foresees, torsades and AV block, the diffusion of the whole latent (teacher, then the
few-step student), then calibration of spread, its parts and the bands on patients no stage has met. Data are sampled
while training, each batch as a function of the stage and the step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from world_models import checkpoint, command_line, keys
from world_models.command_line import MOST_THREADS, whole
from world_models.ecg_wm.band_calibration import calibrate_bands, calibrate_chance
from world_models.ecg_wm.beat_data import DRAWN, BeatSource
from world_models.ecg_wm.beat_training import train_beats
from world_models.ecg_wm.calibration import calibrate
from world_models.ecg_wm.card import write_card
from world_models.ecg_wm.config import LARGE, SMALL, ECGWorldConfig
from world_models.ecg_wm.courses import DrawCourses, sample_courses
from world_models.ecg_wm.diffusion_training import train_diffusion
from world_models.ecg_wm.losses import dynamics_loss, events_loss, foresight_loss
from world_models.ecg_wm.model import KIND, ECGWorldModel
from world_models.ecg_wm.step_error import step_errors
from world_models.training import Schedule, fit

__all__ = ["main", "train", "train_belief", "train_dynamics", "train_foresight", "untrained"]

# Of the patients; calibration's stands with it, validation's and test's in the benchmarks, all disjoint.
TRAIN_SEED = 1_000_000_000
EVENTS = ("torsades_hazard", "av_block")  # parts of the model that are learned from events
APART = ("vae", "residual", *EVENTS)  # what the dynamics stages leave alone
STRIDE = 100_000  # seeds from one step's batch to the next's
MOST_SCALE = 2.5  # with more steps the beats' batches would run into the next stage's 10,000 keys


def _batch_key(stage: int, step: int, batch: int, device: torch.device) -> Tensor:
    return keys.from_seed(TRAIN_SEED + (stage * 10_000 + step) * STRIDE, batch, device)


def untrained(config: ECGWorldConfig) -> ECGWorldModel:
    """A model whose networks' first weights are always the same; nothing else uses a generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ECGWorldModel(config)


def train_dynamics(
    model: ECGWorldModel, steps: int, batch: int, folder: Path, draw: DrawCourses = sample_courses
) -> None:
    """Prior, belief and spread head together, on the courses that `draw` gives."""
    parameters = [p for name, p in model.named_parameters() if name.split(".")[0] not in APART]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = _batch_key(2, step, batch, model.device)
        # Two thirds of the batches are two days in the environment's steps; a third, a dense first half day.
        hours = (2.0, 2.0, 0.5)[step % 3]
        data = draw(key, 24, hours)
        parts = dynamics_loss(model, data, keys.fold(key, "loss"))
        total = parts.evidence + parts.divergence + 0.02 * parts.belief + 0.3 * parts.spread
        return total, {name: value.item() for name, value in parts._asdict().items()}

    fit(model, loss, Schedule(steps, learning_rate=4e-3, clip=2.0), folder, "dynamics", parameters)


def train_belief(
    model: ECGWorldModel, steps: int, batch: int, folder: Path, draw: DrawCourses = sample_courses
) -> None:
    """The belief alone, everything else held: early beliefs chase the last visit's while the prior still moves."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = _batch_key(4, step, batch, model.device)
        parts = dynamics_loss(model, draw(key, 24, (2.0, 2.0, 0.5)[step % 3]), keys.fold(key, "loss"))
        total = parts.evidence + parts.divergence + 0.2 * parts.belief
        return total, {name: value.item() for name, value in parts._asdict().items()}

    fit(model, loss, Schedule(steps, learning_rate=2e-3, clip=2.0), folder, "belief", list(model.believe.parameters()))


def train_foresight(
    model: ECGWorldModel, steps: int, batch: int, folder: Path, draw: DrawCourses = sample_courses
) -> None:
    """Everything together once more, now also by what is foreseen from the baseline alone."""
    parameters = [p for name, p in model.named_parameters() if name.split(".")[0] not in APART]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = _batch_key(5, step, batch, model.device)
        data = draw(key, 24, (2.0, 2.0, 0.5)[step % 3])
        parts = dynamics_loss(model, data, keys.fold(key, "loss"))
        foresight = foresight_loss(model, data, keys.fold(key, "foresight"))
        total = parts.evidence + parts.divergence + 0.02 * parts.belief + 0.3 * parts.spread + 4 * foresight
        return total, {"foresight": foresight.item(), **{name: value.item() for name, value in parts._asdict().items()}}

    fit(model, loss, Schedule(steps, learning_rate=2e-3, warm_up=20, clip=2.0), folder, "foresight", parameters)


def train_events(model: ECGWorldModel, steps: int, batch: int, folder: Path) -> None:
    """Torsades and AV block, from events alone: wide batches, as events are rare."""
    pool = [sample_courses(_batch_key(3, i, batch, model.device), 24, 2.0) for i in range(min(16, steps))]
    parameters = [p for name, p in model.named_parameters() if name.split(".")[0] in EVENTS]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        fatal, block = events_loss(model, pool[step % len(pool)])
        return fatal * 100 + block, {"torsades": fatal.item(), "av_block": block.item()}

    fit(model, loss, Schedule(steps, learning_rate=1e-2, weight_decay=0.0), folder, "events", parameters)


STEPS = {
    "beats": 800,
    "dynamics": 2600,
    "belief": 300,
    "foresight": 350,
    "events": 600,
    "teacher": 1500,
    "student": 1500,
}


def steps_of(scale: float) -> dict[str, int]:
    """Steps of each stage. Raises ValueError where one would have none."""
    least = max(1 / count for count in STEPS.values())
    least = math.ceil(least * 10_000) / 10_000
    if not least <= scale <= MOST_SCALE:
        raise ValueError(
            f"scale={scale:g} must be at least {least:g}, with which every stage has a step, and at most {MOST_SCALE:g}"
        )
    return {stage: int(count * scale) for stage, count in STEPS.items()}


def train(
    config: ECGWorldConfig,
    out: Path,
    device: str = "cpu",
    ludb: Path | None = None,
    scale: float = 1.0,
    ptbxl: Path | None = None,
    challenge: Path | None = None,
) -> ECGWorldModel:
    """Every stage; writes the finished folder to `out`.

    `scale` multiplies the number of steps and, below 1, of drawn beats and calibration's patients (a quick trial:
    0.02). Real beats come from the folders given (`beat_data`).

    Raises:
        ValueError: a scale with which a stage has no step, or a LUDB folder without its beats.
        FileNotFoundError: no LUDB there.
    """
    steps = steps_of(scale)
    if ludb is not None and not (ludb / "ludb.csv").is_file():
        raise FileNotFoundError(f"no ludb.csv in {ludb}; give the folder of LUDB")
    model = untrained(config).to(device)
    work = out / "training"
    batch = 192 if device == "cpu" else 1024
    share = min(1.0, scale)
    source = BeatSource(work, device, ptbxl, ludb, challenge, drawn=max(256, int(DRAWN * share)))
    train_beats(model.vae, source, steps["beats"], 128, work)
    train_dynamics(model, steps["dynamics"], batch, work)
    train_belief(model, steps["belief"], batch, work)
    train_foresight(model, steps["foresight"], batch * 2 // 3, work)
    train_events(model, steps["events"], 2048, work)
    train_diffusion(model, steps["teacher"], steps["student"], max(64, int(4096 * scale)), work)
    # a quick trial is not calibrated for minutes
    figures = calibrate(model.eval(), max(192, int(2048 * share)))
    figures |= calibrate_chance(model, max(32, int(320 * share))) | calibrate_bands(model, max(180, int(4500 * share)))
    off = step_errors(model)
    with open(work / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"stage": "calibrate", **figures, "step_errors": [e._asdict() for e in off]}) + "\n")
    given = {"ludb": ludb, "ptbxl": ptbxl, "challenge": challenge}
    card = write_card(config, steps, batch, [name for name, folder in given.items() if folder is not None], off)
    checkpoint.save_checkpoint(out, model.state_dict(), {"kind": KIND, **dataclasses.asdict(config)}, card)
    return model


def main(arguments: list[str] | None = None) -> int:
    """The command line; the process' exit code."""
    parser = argparse.ArgumentParser(prog="python -m world_models.ecg_wm.train", description=__doc__)
    parser.add_argument(
        "--out", type=command_line.folder, required=True, help="folder for config.json, model.safetensors and CARD.md"
    )
    parser.add_argument("--device", type=command_line.device, default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--size", choices=("small", "large"), default="small")
    parser.add_argument(
        "--ludb", type=Path, default=None, help="LUDB folder: adds its real beats to the beat autoencoder's"
    )
    parser.add_argument("--ptbxl", type=Path, default=None, help="PTB-XL folder: its folds 1 to 6, likewise")
    parser.add_argument("--challenge", type=Path, default=None, help="folder of Challenge 2021 records, likewise")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of training steps")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=2, help="torch threads on the CPU")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    config = SMALL if chosen.size == "small" else LARGE
    try:
        train(config, chosen.out, chosen.device, chosen.ludb, chosen.scale, chosen.ptbxl, chosen.challenge)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(chosen.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
