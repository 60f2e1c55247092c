"""Training of the diffusion on steps of patients' courses: what shapes follow, the energy's units, teacher, student."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg_wm.courses import DrawCourses, sample_courses
from world_models.ecg_wm.diffusion.decoded import WorldDecoder
from world_models.ecg_wm.diffusion.energy import EPK
from world_models.ecg_wm.diffusion.latent_diffusion import Pairs
from world_models.ecg_wm.diffusion.rectified_flow import RectifiedFlow
from world_models.ecg_wm.diffusion.train import train_student, train_teacher
from world_models.ecg_wm.latent import COORDS
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.residual import parts_of
from world_models.ecg_wm.visits import sample_steps
from world_models.quantities.ecg_drug import DRUGS
from world_models.tensor_file import read_tensors, save_tensors
from world_models.training import Schedule

__all__ = ["EPK_WEIGHT", "pool_of_steps", "train_diffusion"]

SEED = 4_000_000_000
STEPS_H = (0.5, 2.0, 2.0, 6.0)  # lengths of the steps that are learned from, equally often
STEPS_OF = 24  # of a course
AT_ONCE = 128  # patients
BATCH = 256
# Of the energy on the estimate, where true beats are no farther from physiology than samples are (docs/log.md).
EPK_WEIGHT = 0.05
EPK_ROWS = 32
RIDGE = 1e-2


def train_diffusion(
    model: ECGWorldModel,
    teacher: int,
    student: int,
    patients: int,
    folder: Path,
    epk_weight: float = EPK_WEIGHT,
    draw: DrawCourses = sample_courses,
) -> None:
    """Fit `model.residual` on steps of `patients` patients a step length: `teacher` and `student` training steps.

    The steps are of the courses that `draw` gives.
    """
    diffusion = model.residual.diffusion
    pool = pool_of_steps(model, patients, folder, draw=draw)
    with torch.no_grad():
        model.residual.follow.copy_(_followed(pool))
        first = pool.parts["admission"][:, COORDS:]
        pool = pool._replace(z_prior=model.residual.given(pool.z_prior[:, :COORDS], first, pool.parts["deviation"]))
        diffusion.units.measure(pool.z_post - pool.z_prior)
        model.residual.met(diffusion.condition(pool.parts, pool.z_pre, pool.z_prior))
        decode = WorldDecoder(model.vae)
        some = pool.take(torch.arange(min(1024, len(pool.z_pre))))
        diffusion.energy.calibrate(decode(some.z_post), some.predicted)
    epk = EPK(diffusion.energy, decode)

    def batch(step: int) -> tuple[Pairs, Tensor]:
        key = keys.from_seed(SEED + 900_000_000 + step * BATCH, BATCH, model.device)
        rows = torch.floor(keys.uniform(key, 0, "diffusion/row") * len(pool.z_pre)).long()
        return pool.take(rows), key

    schedule = Schedule(teacher, learning_rate=1e-3, weight_decay=1e-4, clip=2.0)
    train_teacher(
        diffusion, RectifiedFlow(), batch, schedule, folder, epk=epk, epk_weight=epk_weight, epk_rows=EPK_ROWS
    )
    schedule = Schedule(student, learning_rate=2e-3, weight_decay=1e-4, clip=2.0)
    train_student(diffusion, batch, schedule, folder, epk=epk, epk_weight=epk_weight, partial=False, epk_rows=EPK_ROWS)


def pool_of_steps(
    model: ECGWorldModel, patients: int, folder: Path, seed: int = SEED, draw: DrawCourses = sample_courses
) -> Pairs:
    """Steps of `patients` patients for each of STEPS_H, kept in `folder` once they are made (some minutes of work).

    Shapes are as at admission in `z_prior`: what they follow is fitted on these very steps.
    """
    path = folder / f"steps_{patients}.safetensors"
    if not path.exists():
        parts = []
        for n, hours in enumerate(STEPS_H):
            for start in range(0, patients, AT_ONCE):
                key = keys.from_seed(seed + n * 100_000_000 + start, min(AT_ONCE, patients - start), model.device)
                parts.append(sample_steps(model, key, hours, STEPS_OF, draw=draw)[0])
        whole = tree.cat(parts)
        whole = whole.take(torch.isfinite(whole.predicted).all(-1).nonzero().squeeze(-1))  # of which all can be read
        folder.mkdir(parents=True, exist_ok=True)
        flat = {n: v for n, v in whole._asdict().items() if isinstance(v, Tensor)}
        save_tensors(path, flat | {f"part.{n}": v for n, v in whole.parts.items()})
    kept = read_tensors(path)[0]
    names = [part.name for part in parts_of(model.config, len(DRUGS))]
    tensors = {n: kept[n].to(model.device) for n in Pairs._fields if n != "parts"}
    return Pairs(parts={n: kept[f"part.{n}"].to(model.device) for n in names}, **tensors)


def _followed(pool: Pairs) -> Tensor:
    """How shapes go with the coordinates [COORDS, morphology]: ridge regression of their change since admission."""
    moved = pool.parts["deviation"]
    change = pool.z_post[:, COORDS:] - pool.parts["admission"][:, COORDS:]
    own = moved.T @ moved + RIDGE * len(moved) * torch.eye(COORDS, device=moved.device)
    return torch.linalg.solve(own, moved.T @ change)
