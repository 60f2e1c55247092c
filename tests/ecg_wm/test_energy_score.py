"""The energy score is proper, and blind to what was not observed."""

import torch

from world_models import keys
from world_models.ecg_wm.diffusion.energy_score import energy_score


def normals(seed: int, *shape: int) -> torch.Tensor:
    return keys.normal(keys.from_seed(seed, shape[0]), 0, "test", shape[1:])


def test_energy_score_prefers_the_true_distribution():
    observed = normals(0, 4000, 2)
    draws = normals(10_000, 8, 4000, 2)
    right = energy_score(draws, observed).mean()
    for wrong in (0.5 * draws, 2.0 * draws, draws + 0.5):
        assert right < energy_score(wrong, observed).mean() - 0.01


def test_weight_leaves_out_what_was_not_observed():
    observed, draws = normals(0, 50, 2), normals(1000, 4, 50, 2)
    weight = torch.tensor([1.0, 0.0]).expand(50, 2)
    changed = observed + torch.tensor([0.0, 9.0])
    torch.testing.assert_close(energy_score(draws, observed, weight), energy_score(draws, changed, weight))
