"""`clinenv train`: its arguments. What trains stands on a floor above and is found by its name when it is asked for."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

__all__ = ["ALGORITHMS", "add_arguments", "run"]

# name -> what it is; `agents.train.TRAINERS` has the same names
ALGORITHMS = {
    "ppo": "proximal policy optimisation in torch alone, the fastest here; every id, masks, a limit of the cost",
    "sb3-ppo": "Stable-Baselines3's PPO",
    "a2c": "Stable-Baselines3's A2C",
    "dqn": "Stable-Baselines3's DQN, for menus",
    "qrdqn": "sb3-contrib's QR-DQN, for menus",
    "trpo": "sb3-contrib's TRPO",
    "maskable-ppo": "sb3-contrib's MaskablePPO, where orders are refused",
    "recurrent-ppo": "sb3-contrib's RecurrentPPO (LSTM)",
}
_TRAINER = "agents.train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv train`."""
    from world_models.command_line import MOST_THREADS, folder, number, whole

    told = "; ".join(f"{name}: {what}" for name, what in ALGORITHMS.items())
    parser.add_argument("algo", choices=list(ALGORITHMS), metavar="ALGORITHM", help=told)
    parser.add_argument("env", metavar="ID", help="of the environment, e.g. ECGDrug-v0")
    parser.add_argument("--world", help="to train in: a name, a folder, or oracle (default: the id's learned world)")
    parser.add_argument(
        "--out", type=folder, required=True, help="folder for the policy; the same command goes on there"
    )
    parser.add_argument("--steps", type=whole(1), default=1_000_000, help="patient-steps in all (default 1,000,000)")
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    seeds = "train so many, and keep the one that earns most in the world it was trained in, on patients of no training"
    parser.add_argument("--seeds", type=whole(1, 1000), default=1, help=seeds)
    parser.add_argument("--num-envs", type=whole(1, 1 << 20), help="patients at once (default: the preset's)")
    parser.add_argument("--cost-weight", type=number(0, 1e6), help="what one unit of safety cost is worth in return")
    limit = "mean cost of a course that is allowed: a Lagrange multiplier takes the weight's place"
    parser.add_argument("--cost-limit", type=number(0, 1e9), help=limit)
    parser.add_argument("--device", help="of world and policy (default: cpu); with ppo alone")
    compiled = "gradient steps as machine code, made in seconds at the start (needs a C++ compiler); with ppo alone"
    parser.add_argument("--compile", action="store_true", help=compiled)
    parser.add_argument("--tensorboard", action="store_true", help="write for TensorBoard too, into OUT/tensorboard")
    parser.add_argument("--fresh", action="store_true", help="start anew even if --out holds a run")
    threads = "torch threads; networks this small gain from one only"
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1, help=threads)


def run(given: argparse.Namespace) -> int:
    """Train, or go on with it."""
    trainer: Any = import_module(_TRAINER)
    return trainer.run(given)
