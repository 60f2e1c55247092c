"""Builders of trained policies, once for the id's own length; kept in the folder of runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from agents import ppo as torch_ppo
from agents.making import Built, Making
from agents.policy_agent import PolicyAgent
from agents.run_folder import POLICY, weights_sum
from agents.sb3.presets import preset_for
from agents.sb3.train import train
from agents.sb3.ward import WardPolicy, WardPPO, train_ward

__all__ = ["ppo", "sb3", "stored", "ward_knobs"]

STEPS, QUICK_STEPS = 1_500_000, 24_576  # of patients
SB3_STEPS = 300_000
KNOB_STEPS = 120_000
KNOB_PATIENTS = 8_600_000_000  # seed of the first that the knobs are learned on


def ppo(making: Making) -> Built:
    """PPO in torch alone, with the id's preset."""
    config = torch_ppo.preset_for(making.env_id)
    steps = QUICK_STEPS if making.quick else STEPS
    folder = _folder(making, "ppo", steps)
    torch_ppo.train(folder, steps, making.env_id, making.world, config, seed=making.seed, progress=False)
    return _built(folder, making)


def sb3(making: Making, algo: str) -> Built:
    """An algorithm of Stable-Baselines3 or sb3-contrib, with the id's preset."""
    preset = preset_for(algo, making.env_id)
    steps = QUICK_STEPS if making.quick else SB3_STEPS
    folder = _folder(making, f"sb3-{algo}", steps)
    train(folder, steps, algo, making.world, making.env_id, preset, seed=making.seed, progress=False)
    return _built(folder, making)


def ward_knobs(making: Making) -> Built:
    """PPO on the knobs of the ward's rule, which it begins as; orders at amounts of its own (`agents.sb3.ward`)."""
    steps = QUICK_STEPS if making.quick else KNOB_STEPS
    folder, config = _folder(making, "knobs", steps), WardPPO()
    train_ward(folder, steps, making.world, config, making.seed, KNOB_PATIENTS + making.seed * 1_000_000)
    agent = WardPolicy(folder, making.simulator)
    return Built(agent, {"folder": folder.name, **asdict(config), "seed": making.seed}, f"{steps:,} training steps")


def stored(making: Making, folder: str) -> Built:
    """A policy of a folder that `clinenv train` wrote.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is damaged, or reads another observation than the id shows.
    """
    return _built(Path(folder), making)


def _folder(making: Making, what: str, steps: int) -> Path:
    made = (weights_sum(making.world) or "")[:8]
    return making.runs / f"{what}-{making.env_id}-{Path(making.world).name}{made}-{steps}-{making.seed}"


def _built(folder: Path, making: Making) -> Built:
    with POLICY.opened(folder) as found:
        told, seal = dict(found.config), found.sha256
    steps = told.get("steps_done")
    kept = ("library", "algo", "world", "world_sha256", "seed", "preset", "steps_done", "multiplier")
    settings = {"folder": folder.name, **{name: told[name] for name in kept if name in told}}
    agent = PolicyAgent(folder, making.simulator)
    return Built(agent, settings, f"{steps:,} training steps" if steps else "", seal)
