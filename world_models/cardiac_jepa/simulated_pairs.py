"""Pairs of ECGs synthesised while training: more patients than a file could hold, and never the same day twice.

A predictor of latents learns what an action does from changed pairs alone, and learns some ten thousands of them by
heart (docs/log.md). The oracle's visits are small and its ECGs quick to make, so the visits of many patients are
simulated once (`simulated_visits`) and their ECGs synthesised batch by batch, with another day's noise each time a pair
comes round.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from world_models import checkpoint, keys, tree
from world_models.cardiac_jepa.pretrain import Batch, PairOrder, check_rows
from world_models.oracles.progression.ecg.synthesis import synthesise_progression_ecg
from world_models.oracles.progression.visits import MOST_VISITS, Visits, make_visits

__all__ = ["SimulatedPairs", "simulated_visits"]


class SimulatedPairs:
    """Batches of pairs of a simulated patient's ECGs, each a function of the step alone.

    Args:
        visits: whose ECGs are synthesised, on their device.
        first, second: int64 [P], rows of the earlier and later visits.
        crop: samples of an ECG, at 100 Hz.
        seed: of the order.
        reversed: bool [P], pairs whose second visit is the earlier one (`synthetic_pairs`); default: none.

    Raises:
        ValueError: no pairs, rows that are not there, two patients in a pair, or a later visit that is earlier.
    """

    def __init__(
        self,
        visits: Visits,
        first: Tensor,
        second: Tensor,
        crop: int = 250,
        seed: int = 0,
        reversed: Tensor | None = None,
    ):
        check_rows(first, second, len(visits.key))
        self.days = visits.days[second] - visits.days[first]
        if reversed is not None:
            self.days = torch.where(reversed.to(self.days.device), -self.days, self.days)
        wrong = (self.days < 0) | (visits.patient[first] != visits.patient[second])
        if bool(wrong.any()):
            raise ValueError(
                f"{int(wrong.sum())} pairs go back in time or join two patients; give a patient's earlier visit first"
            )
        self.visits, self.first, self.second, self.crop = visits, first, second, crop
        self.order = PairOrder(len(first), keys.from_seed(seed))

    def __len__(self) -> int:
        return len(self.first)

    @property
    def codes(self) -> int:
        """How many labels the visits have."""
        return self.visits.condition.shape[1]

    def batch(self, step: int, size: int = 256, rank: int = 0, world: int = 1) -> Batch:
        """ECGs before and after [B, 12, crop] float32 mV, action [B, C] in {-1, 0, 1}, days [B].

        Raises:
            ValueError: a size that `world` does not divide.
        """
        place, pair = self.order.batch(step, size, rank, world)
        device = self.visits.key.device
        place, pair = place.to(device), pair.to(device)
        before, after = (tree.take(self.visits, rows[pair]) for rows in (self.first, self.second))
        days = MOST_VISITS * (1 + place)  # numbers of visits that no other batch has
        both = tree.cat([before._replace(t=before.t + days), after._replace(t=after.t + days)])
        ecg = synthesise_progression_ecg(
            both.key, both.t, both.condition, both.age_years, both.sex_female, both.treated, self.crop
        )
        return ecg[: len(pair)], ecg[len(pair) :], after.condition.float() - before.condition.float(), self.days[pair]


def simulated_visits(folder: Path, seed: int, patients: int, cohort: str = "hospital", chunk: int = 16_384) -> Visits:
    """`make_visits` in chunks of patients that are kept in the folder: what is there is loaded, what lacks is made.

    Patients have the numbers they have in `make_visits(seed, patients)`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in tqdm(range(0, patients, chunk), desc="simulated visits", mininterval=1):
        count = min(chunk, patients - start)
        path = folder / f"visits-{cohort}-{seed + start}-{count}.safetensors"
        if not path.exists():
            made = make_visits(seed + start, count, cohort)._asdict()
            checkpoint.save_tensors(path, {name: x.contiguous() for name, x in made.items()})
        part = Visits(**load_file(path))
        parts.append(part._replace(patient=part.patient + start))
    return tree.cat(parts)
