"""The small whole things that campaigns write and damage: a log, a monolith, a policy, contexts, a submission."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from agents import ppo
from agents.offline.acting import Acting
from agents.offline.collect import collect
from agents.offline.logged import Logged
from agents.offline.recipes import behaviour, simulator_of
from agents.ppo_config import PPOConfig
from clinenv.simulator import Simulator
from clinenv.vector_env import ClinicalVectorEnv
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from world_models.data.ecg.monolith import MonolithWriter
from world_models.data.ehr.context.context_file import ContextWriter
from world_models.data.ehr.context.model import Extraction
from world_models.data.ehr.context.notes import Note
from world_models.data.ehr.context.schema import StatedDiagnosis, StaticContext

__all__ = ["log", "rows", "simulator", "train_policy", "write_contexts", "write_monolith", "write_submission"]

SAMPLES = 50
POLICY = PPOConfig(num_envs=16, n_steps=STEPS, minibatch=64, hidden=(16, 16))
SUBMISSION = {
    "name": "mine",
    "ids": ["ECGDrug-v0"],
    "made_in": "ecg-wm-small",
    "seeds": 2,
    "sees": [],
    "files": ["notes"],
    "licence": "Apache-2.0",
    "contact": "me@example.org",
    "description": "gives nothing",
    "entry": "my_agent:build",
}


def rows(start: int, count: int) -> dict[str, np.ndarray]:
    """Rows `start` to `start + count` of an endless monolith: what a row holds depends on its number alone."""
    number = np.arange(start, start + count)
    wave = np.sin(number[:, None, None] + np.arange(12)[:, None] + 0.1 * np.arange(SAMPLES)).astype(np.float32)
    return {
        "ecg": wave,
        "label": (number[:, None] >> np.arange(3)) % 2 == 1,
        "patient": number // 3,
        "days": number % 3 * 7.5,
        "age_years": 40.0 + number % 50,
        "sex_female": np.where(number % 5 == 0, np.nan, number % 2),
        "fold": number // 3 % 20,
        "first": number % 3 == 0,
        "record": 1000 + number,
    }


def write_monolith(path: Path, count: int = 21, batch: int = 5) -> None:
    """Go on until all rows are there, as a program does that is started again with the same command."""
    if path.exists():
        return
    with MonolithWriter(path, codes=("I10", "I44", "I48"), rate=100, samples=SAMPLES, source="a test") as writer:
        while writer.rows < count:
            writer.append(**rows(writer.rows, min(batch, count - writer.rows)))


@lru_cache(maxsize=1)
def log() -> Logged:
    """Four logged courses of ECGDrug-v0."""
    simulator = simulator_of("ECGDrug-v0")
    return collect(Acting(behaviour("ECGDrug-v0", "mixed", simulator), 1), simulator, 4321, 4, 12, "ECGDrug-v0")


@lru_cache(maxsize=1)
def simulator() -> Simulator:
    """Of the dial, the smallest world."""
    return Simulator(DialWorld(drift=0.2), DialTask())


def _dials(env_id: str, num_envs: int, _: Any, **settings: Any) -> ClinicalVectorEnv:
    return ClinicalVectorEnv(DialTask(), num_envs, DialWorld(drift=0.2), **settings)


def train_policy(folder: Path, updates: int = 2, save_every_s: float = 60.0) -> None:
    """A policy for the dial, trained for so many updates; what was begun is gone on with."""
    steps = updates * POLICY.num_envs * POLICY.n_steps
    world = simulator().world
    ppo.train(
        folder, steps, world=world, config=replace(POLICY), make=_dials, progress=False, save_every_s=save_every_s
    )


def write_contexts(path: Path, notes: int = 6) -> None:
    """A file of contexts; what was begun is gone on with."""
    if path.exists():
        return
    with ContextWriter(path, "campaign") as writer:
        for number in range(notes):
            note = Note(f"n{number}", number, 20000000 + number, f"note {number}: sepsis because of a lactate of 4.2.")
            sepsis = StatedDiagnosis("sepsis", "lactate of 4.2", None, ("sepsis",))
            context = StaticContext(40.0 + number % 50, "female", ("latex",), sepsis, (sepsis,))
            if not writer.is_done(note):
                writer.write([note], [Extraction(context, "rules")])
        writer.finish()


def write_submission(folder: Path) -> None:
    """A submission of an agent that gives nothing."""
    (folder / "my_agent.py").write_text("from agents.baselines.rules import nothing as build\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("a note\n")
    (folder / "mine.json").write_text(json.dumps(SUBMISSION, indent=1))
