"""The energy score is proper, and a flow trained on it has the right spread in few steps."""

import torch

from world_models import keys
from world_models.ecg_wm.flow import ResidualFlow, energy_score


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


def test_three_steps_learn_mean_and_spread():
    torch.manual_seed(0)
    flow = ResidualFlow(1, 1, 32, 3)
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for step in range(400):
        condition = torch.sign(normals(step * 7919, 256, 1))
        observed = 0.3 * normals(step * 7919 + 10**6, 256, 1) + condition
        noise = normals(step * 7919 + 2 * 10**6, 4, 256, 1)
        loss = energy_score(flow(noise, condition.expand(4, -1, -1)), observed).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        drawn = flow(normals(5, 4000, 1), torch.ones(4000, 1))
    assert abs(drawn.mean() - 1) < 0.08 and abs(drawn.std() - 0.3) < 0.08
