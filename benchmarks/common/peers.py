"""The fastest peers, measured on this machine in virtual environments of their own.

ICU-Sepsis (arXiv 2406.05646): a tabular clinical environment. mbrl-lib (arXiv 2104.10159): the usual ensemble of five
probabilistic MLPs as a learned vector environment. mbrl-lib's pins are older than today's torch, so it is installed
without them and borrows this project's torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "measure_peer"]

# Each script is told seconds and repeats and prints one JSON line: {"what": steps a second}.
_CLOCK = """
import json, statistics, sys, time
seconds, repeats = float(sys.argv[1]), int(sys.argv[2])

def rate(work):
    work()
    found = []
    for _ in range(repeats):
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            done += work()
        found.append(done / (time.perf_counter() - start))
    return statistics.median(found)
"""

_ICU_SEPSIS = (
    _CLOCK
    + """
import gymnasium as gym, icu_sepsis, numpy as np

def work():
    for _ in range(100):
        _, _, terminated, truncated, _ = env.step(int(actions[next(turn) % 256]))
        if terminated or truncated:
            env.reset()
    return 100

import itertools
turn = itertools.count()
env = gym.make("Sepsis/ICU-Sepsis-v2", disable_env_checker=True)
env.reset(seed=0)
actions = np.random.default_rng(0).integers(env.action_space.n, size=256)
print(json.dumps({"one environment": rate(work)}))
"""
)

_MBRL = (
    _CLOCK
    + """
import gymnasium as gym, numpy as np, torch
import mbrl.models as models
torch.set_num_threads(int(sys.argv[3]))

class Box(gym.Env):  # the size of a clinical chart: 24 numbers seen, one of 9 drugs as a vector
    observation_space = gym.spaces.Box(-1, 1, (24,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (9,), np.float32)

size = dict(num_layers=4, ensemble_size=5, hid_size=200)
network = models.GaussianMLP(24 + 9, 24 + 1, "cpu", propagation_method="random_model", **size)
network.set_elite([0, 1, 2, 3, 4])
learned = models.OneDTransitionRewardModel(network, target_is_delta=True, normalize=False, learned_rewards=True)
never = lambda action, seen: torch.zeros(seen.shape[0], 1, dtype=torch.bool)
env = models.ModelEnv(Box(), learned, never, None, generator=torch.Generator())
found = {}
for batch in (60, 1000, 4000):
    state = env.reset(np.zeros((batch, 24), np.float32))
    action = np.zeros((batch, 9), np.float32)

    def work():
        env.step(action, state, sample=True)
        return batch

    found[f"batch {batch}"] = rate(work)
print(json.dumps(found))
"""
)


@dataclass(frozen=True)
class Peer:
    """How a peer is installed and measured."""

    installs: tuple[tuple[str, ...], ...]  # arguments of pip install, one call each
    script: str
    borrow: bool  # append this project's packages behind its own


PEERS: dict[str, Peer] = {
    "icu-sepsis": Peer((("icu-sepsis==2.0.1",),), _ICU_SEPSIS, borrow=False),
    "mbrl-lib": Peer(
        (("--no-deps", "mbrl==0.2.0"), ("gym==0.26.2", "numpy<2", "hydra-core", "imageio", "termcolor", "matplotlib")),
        _MBRL,
        borrow=True,
    ),
}


def measure_peer(name: str, folder: Path, seconds: float, repeats: int, threads: int = 1) -> dict[str, Any]:
    """Install the peer under `folder` if it is not there yet and measure it.

    Returns:
        {"rates": {what: steps a second}}, or {"error": why it could not be measured}; a peer that does not install is
        a finding, not a failure of the benchmark.
    """
    peer = PEERS[name]
    home = folder / name
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = home / "installed"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        if not done.exists():
            venv.create(home, with_pip=True, clear=True)
            for arguments in peer.installs:
                _run([python, "-m", "pip", "install", "--quiet", *arguments], environment, 900)
            done.touch()
        if peer.borrow:  # what is appended comes after the peer's own packages
            script = f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r})\n" + peer.script
        else:
            script = peer.script
        printed = _run([python, "-W", "ignore", "-c", script, seconds, repeats, threads], environment, 600)
        return {"rates": json.loads(printed.strip().splitlines()[-1]), "threads": threads}
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return {"error": f"not measured: {said[-1][:200] if said else type(error).__name__}"}


def _run(command: list[Any], environment: dict[str, str], timeout_s: float) -> str:
    command = [str(part) for part in command]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=True)
    return run.stdout


def main() -> int:
    """Measure every peer and print what was found."""
    for name in PEERS:
        found = measure_peer(name, Path.home() / ".cache" / "clinenv-peers", 2.0, 3)
        print(name, json.dumps(found), file=sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
