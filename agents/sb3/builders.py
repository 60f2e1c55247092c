"""Builders of policies that Stable-Baselines3 trains, once for the id's own length; kept in the folder of runs."""

from __future__ import annotations

from pathlib import Path

from agents.making import Built, Making
from agents.sb3.policy_agent import PolicyAgent
from agents.sb3.presets import preset_for
from agents.sb3.store import FORM
from agents.sb3.train import train, weights_sum

__all__ = ["ppo", "stored"]

STEPS, QUICK_STEPS = 300_000, 12_288  # of patients


def ppo(making: Making) -> Built:
    """PPO with the id's preset."""
    preset = preset_for("ppo", making.env_id)
    steps = QUICK_STEPS if making.quick else STEPS
    made = (weights_sum(making.world) or "")[:8]
    folder = making.runs / f"ppo-{making.env_id}-{Path(making.world).name}{made}-{steps}-{making.seed}"
    train(folder, steps, "ppo", making.world, making.env_id, preset, seed=making.seed, progress=False)
    settings = {"seed": making.seed, "steps": steps, **preset.to_json()}
    return Built(PolicyAgent(folder, making.simulator), settings, f"{steps:,} training steps", _seal(folder))


def stored(making: Making, folder: str) -> Built:
    """A policy of a folder that `agents.sb3` wrote.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is damaged, or reads another observation than the id shows.
    """
    with FORM.opened(Path(folder)) as found:
        steps = found.config.get("steps_done")
    agent = PolicyAgent(folder, making.simulator)
    return Built(
        agent, {"folder": Path(folder).name}, f"{steps:,} training steps" if steps else "", _seal(Path(folder))
    )


def _seal(folder: Path) -> str:
    with FORM.opened(folder) as found:
        return found.sha256
