"""Steps a second of mbrl-lib's learned vector environment: its usual ensemble of five probabilistic MLPs, untrained.

`python -m benchmarks.common.peer_scripts.mbrl_ensemble SECONDS REPEATS THREADS`. Its steps have no resets: patients
never end here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from benchmarks.common.timing import Work, rate

SEEN, ACTION = 24, 9  # the size of a clinical chart: 24 numbers seen, one of 9 drugs as a vector
MEMBERS = 5
BATCHES = (60, 1000, 4000)  # multiples of the members, as the ensemble wants it


class Box(gym.Env):
    """The spaces alone."""

    observation_space = gym.spaces.Box(-1, 1, (SEEN,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (ACTION,), np.float32)


def stepping(env: Any, batch: int) -> Work:
    """Work: one sampled step of the whole batch of a `ModelEnv`."""
    state = env.reset(np.zeros((batch, SEEN), np.float32))
    action = np.zeros((batch, ACTION), np.float32)

    def work() -> int:
        env.step(action, state, sample=True)
        return batch

    return work


def main() -> None:
    import mbrl.models as models  # where this runs it is there

    seconds, repeats, threads = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    size = {"num_layers": 4, "ensemble_size": MEMBERS, "hid_size": 200}
    network = models.GaussianMLP(SEEN + ACTION, SEEN + 1, "cpu", propagation_method="random_model", **size)
    network.set_elite(list(range(MEMBERS)))
    learned = models.OneDTransitionRewardModel(network, target_is_delta=True, normalize=False, learned_rewards=True)

    def never(action: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return torch.zeros(seen.shape[0], 1, dtype=torch.bool)

    env = models.ModelEnv(Box(), learned, never, None, generator=torch.Generator())
    print(json.dumps({f"batch {batch}": rate(stepping(env, batch), seconds, repeats) for batch in BATCHES}))


if __name__ == "__main__":
    main()
