"""PufferLib's default policy on its own vectorisation: two batches of patients in one set of shared buffers.

PuffeRL, PufferLib's trainer, takes what `pufferlib.vector.make` gives here; make the environments with
`time_limit_ends=True` for it, and mind that it clips rewards to [-1, 1] and needs PufferLib's compiled extension.
"""

from __future__ import annotations

import argparse

import numpy as np
import pufferlib.vector
import torch
from pufferlib.models import Default
from pufferlib.pytorch import sample_logits

from clinenv.doors.pufferlib import PufferVectorEnv


def main(argv: list[str] | None = None) -> float:
    """Collects; returns the mean return of the courses that ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=50_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=128, help="of each of the two")
    args = parser.parse_args(argv)

    env = pufferlib.vector.make(
        PufferVectorEnv,
        env_kwargs={"env_id": "ECGDrug-v0", "num_envs": args.num_envs, "world": args.world},
        backend=pufferlib.vector.Serial,  # or Multiprocessing
        num_envs=2,
    )
    torch.manual_seed(0)
    policy = Default(env.driver_env)
    env.async_reset(seed=0)
    told: list[dict[str, float]] = []
    for _ in range(max(25, args.steps // (2 * args.num_envs))):
        seen, _, _, _, _, infos, _, _ = env.recv()
        told += [info for info in infos if "episode_return" in info]
        with torch.no_grad():
            logits, _ = policy.forward_eval(torch.as_tensor(seen))
            action, _, _ = sample_logits(logits)
        env.send(action.numpy().astype(np.int32))
    returns, costs = (np.array([info[f"episode_{name}"] for info in told]) for name in ("return", "cost"))
    print(f"{len(told)} courses of an untrained policy: return {returns.mean():.2f}, cost {costs.mean():.2f}")
    env.close()
    return float(returns.mean())


if __name__ == "__main__":
    main()
